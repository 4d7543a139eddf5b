// Package namespace empties namespaces that are being deleted, then lets them go.
//
// The flow: ask discovery what can stand in a namespace, delete every collection, look what is left, say so in the
// namespace's conditions; when nothing is left, take the finalizer off. It keeps no state: each turn looks anew.
package namespace

import (
	"context"
	"fmt"
	"slices"
	"strings"
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

var pods = corev1.SchemeGroupVersion.WithResource("pods")

// remains is what could not be removed yet.
type remains struct {
	discovery, deletion error
	counts              map[string]int // by resource
	finalizers          map[string]int
}

func (c *controller) empty(ctx context.Context, ns *corev1.Namespace) (time.Duration, error) {
	if !slices.Contains(ns.Spec.Finalizers, corev1.FinalizerKubernetes) {
		return 0, nil
	}
	r := remains{counts: map[string]int{}, finalizers: map[string]int{}}
	resources, err := c.resources()
	r.discovery = err
	// Pods go first: what they run under - policies, secrets, accounts - stays until the last has ended.
	if i := slices.Index(resources, pods); i >= 0 {
		resources = slices.Delete(resources, i, i+1)
		if r.deletion = c.clear(ctx, ns.Name, pods, &r); r.deletion != nil || r.counts[pods.Resource] > 0 {
			resources = nil
		}
	}
	for _, gvr := range resources {
		if err := c.clear(ctx, ns.Name, gvr, &r); err != nil && r.deletion == nil {
			r.deletion = err
		}
	}
	if r.discovery == nil && r.deletion == nil && len(r.counts) == 0 {
		next := ns.DeepCopy()
		next.Spec.Finalizers = slices.DeleteFunc(next.Spec.Finalizers, func(f corev1.FinalizerName) bool { return f == corev1.FinalizerKubernetes })
		_, err := c.Client.CoreV1().Namespaces().Finalize(ctx, next, metav1.UpdateOptions{})
		if apierrors.IsNotFound(err) {
			return 0, nil
		}
		return 0, err
	}
	next := ns.DeepCopy()
	next.Status.Conditions = conditions(ns.Status.Conditions, &r, metav1.Now())
	if !slices.Equal(next.Status.Conditions, ns.Status.Conditions) {
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
	for _, o := range list.Items {
		r.counts[gvr.GroupResource().String()]++
		for _, f := range o.Finalizers {
			r.finalizers[f]++
		}
	}
	return nil
}

// conditions says in words what holds a namespace.
func conditions(have []corev1.NamespaceCondition, r *remains, now metav1.Time) []corev1.NamespaceCondition {
	out := slices.Clone(have)
	set := func(t corev1.NamespaceConditionType, bad bool, badReason, badMessage, goodReason, goodMessage string) {
		next := corev1.NamespaceCondition{Type: t, Status: corev1.ConditionFalse, Reason: goodReason, Message: goodMessage, LastTransitionTime: now}
		if bad {
			next.Status, next.Reason, next.Message = corev1.ConditionTrue, badReason, badMessage
		}
		i := slices.IndexFunc(out, func(c corev1.NamespaceCondition) bool { return c.Type == t })
		if i < 0 {
			out = append(out, next)
			return
		}
		if out[i].Status == next.Status {
			next.LastTransitionTime = out[i].LastTransitionTime
		}
		out[i] = next
	}
	text := func(err error) string {
		if err == nil {
			return ""
		}
		return err.Error()
	}
	set(corev1.NamespaceDeletionDiscoveryFailure, r.discovery != nil, "DiscoveryFailed", "Discovery failed for some groups: "+text(r.discovery), "ResourcesDiscovered", "All resources successfully discovered")
	set(corev1.NamespaceDeletionGVParsingFailure, false, "", "", "ParsedGroupVersions", "All legacy kube types successfully parsed")
	set(corev1.NamespaceDeletionContentFailure, r.deletion != nil, "ContentDeletionFailed", "Failed to delete all resource types, "+text(r.deletion), "ContentDeleted", "All content successfully deleted, may be waiting on finalization")
	var left, held []string
	for res, n := range r.counts {
		left = append(left, fmt.Sprintf("%s has %d resource instances", res, n))
	}
	for f, n := range r.finalizers {
		held = append(held, fmt.Sprintf("%s in %d resource instances", f, n))
	}
	slices.Sort(left)
	slices.Sort(held)
	set(corev1.NamespaceContentRemaining, len(left) > 0, "SomeResourcesRemain", "Some resources are remaining: "+strings.Join(left, ", "), "ContentRemoved", "All content successfully removed")
	set(corev1.NamespaceFinalizersRemaining, len(held) > 0, "SomeFinalizersRemain", "Some content in the namespace has finalizers remaining: "+strings.Join(held, ", "), "ContentHasNoFinalizers", "All content-preserving finalizers finished")
	return out
}
