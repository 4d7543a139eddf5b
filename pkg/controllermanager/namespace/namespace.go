// Package namespace empties namespaces that are being deleted, then lets them go.
//
// The flow: ask discovery what can stand in a namespace, delete every collection, look what is left, say so in the
// namespace's conditions; when nothing is left, take the finalizer off. It keeps no state: each turn looks anew.
package namespace

import (
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/metadata"

	"github.com/sextant-k8s/sextant/pkg/controllermanager/runtime"
)

// again is how soon a namespace that still holds something is looked at.
const again = 3 * time.Second

type controller struct {
	runtime.Deps
	objects metadata.Interface
}

// New answers the controller; objects reads and deletes objects of any kind.
func New(d runtime.Deps, objects metadata.Interface) *runtime.Controller {
	namespaces := d.Informers.Core().V1().Namespaces()
	c := &controller{Deps: d, objects: objects}
	return &runtime.Controller{
		Name: "namespace-controller", Account: "namespace-controller", Queue: "namespace", For: "namespaces that are deleted are emptied first",
		Watches: []runtime.Watch{{What: "namespaces", Informer: namespaces.Informer(), Keys: func(_, obj metav1.Object) []runtime.Key {
			if obj.GetDeletionTimestamp() == nil {
				return nil
			}
			return []runtime.Key{runtime.KeyOf(obj)}
		}}},
		Writes: []string{"namespaces/finalize", "namespaces/status", "*"},
		Reconcile: func(ctx context.Context, key runtime.Key) (time.Duration, error) {
			ns, err := namespaces.Lister().Get(key.Name)
			if apierrors.IsNotFound(err) || err == nil && ns.DeletionTimestamp == nil {
				return 0, nil
			}
			if err != nil {
				return 0, err
			}
			return c.empty(ctx, ns)
		},
	}
}

func (c *controller) empty(ctx context.Context, ns *corev1.Namespace) (time.Duration, error) {
	if !slices.Contains(ns.Spec.Finalizers, corev1.FinalizerKubernetes) {
		return 0, nil
	}
	r := remains{counts: map[string]int{}, finalizers: map[string]int{}}
	resources, err := c.resources()
	r.discovery = err
	for _, wave := range waves(resources) {
		for _, gvr := range wave {
			if err := c.clear(ctx, ns.Name, gvr, &r); err != nil && r.deletion == nil {
				r.deletion = err
			}
		}
		if r.deletion != nil || len(r.counts) > 0 {
			break
		}
	}
	p := decide(Snapshot{Namespace: ns, remains: r, Now: metav1.Now()})
	if p.Finalize != nil {
		if _, err := c.Client.CoreV1().Namespaces().Finalize(ctx, p.Finalize, metav1.UpdateOptions{}); err != nil && !apierrors.IsNotFound(err) {
			return 0, err
		}
		return 0, nil
	}
	if p.Conditions != nil {
		next := ns.DeepCopy()
		next.Status.Conditions = p.Conditions
		if _, err := c.Client.CoreV1().Namespaces().UpdateStatus(ctx, next, metav1.UpdateOptions{}); err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			return 0, err
		}
	}
	return again, nil
}

// resources answers everything that can be listed and deleted in a namespace.
func (c *controller) resources() ([]schema.GroupVersionResource, error) {
	lists, err := c.Client.Discovery().ServerPreferredNamespacedResources()
	var out []schema.GroupVersionResource
	for _, l := range discovery.FilteredBy(discovery.SupportsAllVerbs{Verbs: []string{"delete", "list"}}, lists) {
		gv, perr := schema.ParseGroupVersion(l.GroupVersion)
		if perr != nil {
			continue
		}
		for _, r := range l.APIResources {
			out = append(out, gv.WithResource(r.Name))
		}
	}
	return out, err
}

// clear deletes all objects of one resource and notes what stays.
func (c *controller) clear(ctx context.Context, ns string, gvr schema.GroupVersionResource, r *remains) error {
	in := c.objects.Resource(gvr).Namespace(ns)
	list, err := in.List(ctx, metav1.ListOptions{})
	if apierrors.IsNotFound(err) || apierrors.IsMethodNotSupported(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("listing %s: %w", gvr.Resource, err)
	}
	if len(list.Items) == 0 {
		return nil
	}
	if !slices.ContainsFunc(list.Items, func(o metav1.PartialObjectMetadata) bool { return o.DeletionTimestamp == nil }) {
		r.count(gvr, list.Items) // all are told to go, and something holds them
		return nil
	}
	background := metav1.DeletePropagationBackground
	err = in.DeleteCollection(ctx, metav1.DeleteOptions{PropagationPolicy: &background}, metav1.ListOptions{})
	if apierrors.IsMethodNotSupported(err) {
		for _, o := range list.Items {
			if err = in.Delete(ctx, o.Name, metav1.DeleteOptions{PropagationPolicy: &background}); apierrors.IsNotFound(err) {
				err = nil
			}
		}
	}
	if err != nil {
		return fmt.Errorf("deleting %s: %w", gvr.Resource, err)
	}
	if list, err = in.List(ctx, metav1.ListOptions{}); err != nil {
		return fmt.Errorf("listing %s: %w", gvr.Resource, err)
	}
	r.count(gvr, list.Items)
	return nil
}

// count notes what stays of a resource.
func (r *remains) count(gvr schema.GroupVersionResource, items []metav1.PartialObjectMetadata) {
	for _, o := range items {
		r.counts[gvr.GroupResource().String()]++
		for _, f := range o.Finalizers {
			r.finalizers[f]++
		}
	}
}
