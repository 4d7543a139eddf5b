// Package endpointslice keeps the endpoint slices of services equal to the pods they select.
//
// A service, a pod that it selects or one of its slices brings the service's key; decide compares what should be with
// what is and touches as few slices as it can. It keeps no state: slices of our own that the cache does not show yet are
// found by the next event and corrected.
package endpointslice

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corelisters "k8s.io/client-go/listers/core/v1"

	"github.com/sextant-k8s/sextant/pkg/controllermanager/runtime"
)

type controller struct {
	runtime.Deps
	services corelisters.ServiceLister
	nodes    corelisters.NodeLister
	expect   runtime.Expectations

	podsOf     func(namespace string, selector map[string]string) []*corev1.Pod
	servicesOf func(namespace string, labels map[string]string) []*corev1.Service
	slicesOf   func(service string) []*discoveryv1.EndpointSlice
}

// New answers the controller.
func New(d runtime.Deps) *runtime.Controller {
	core, all := d.Informers.Core().V1(), d.Informers.Discovery().V1().EndpointSlices()
	c := &controller{
		Deps: d, services: core.Services().Lister(), nodes: core.Nodes().Lister(), podsOf: runtime.PodsSelected(d), servicesOf: runtime.ServicesSelecting(d),
		slicesOf: runtime.By(all.Informer(), "service", func(s *discoveryv1.EndpointSlice) []string {
			if s.Labels[discoveryv1.LabelManagedBy] != manager {
				return nil
			}
			return []string{s.Namespace + "/" + s.Labels[discoveryv1.LabelServiceName]}
		}),
	}
	ofService := func(obj metav1.Object) []runtime.Key {
		if obj.GetLabels()[discoveryv1.LabelManagedBy] != manager {
			return nil
		}
		return []runtime.Key{{Namespace: obj.GetNamespace(), Name: obj.GetLabels()[discoveryv1.LabelServiceName]}}
	}
	return &runtime.Controller{
		Name: "endpointslice-controller", Account: "endpointslice-controller", Queue: "endpoint_slice", For: "the endpoint slices of a service, from the pods it selects",
		Watches: []runtime.Watch{
			{What: "services", Informer: core.Services().Informer(), Keys: runtime.Self},
			{What: "pods", Informer: core.Pods().Informer(), Keys: c.selecting},
			{What: "nodes", Informer: core.Nodes().Informer(), Keys: func(metav1.Object, metav1.Object) []runtime.Key { return nil }},
			{What: "endpointslices", Informer: all.Informer(), Keys: func(_, obj metav1.Object) []runtime.Key { return ofService(obj) },
				Born: func(obj metav1.Object) {
					for _, k := range ofService(obj) {
						c.expect.Created(k, 1)
					}
				}},
		},
		Writes: []string{"endpointslices"}, Reconcile: c.reconcile,
	}
}

// selecting answers the services that select a pod, if something changed that concerns them.
func (c *controller) selecting(old, obj metav1.Object) []runtime.Key {
	p := obj.(*corev1.Pod)
	o, _ := old.(*corev1.Pod)
	if o != nil && !concerns(o, p) {
		return nil
	}
	var keys []runtime.Key
	add := func(p *corev1.Pod) {
		for _, s := range c.servicesOf(p.Namespace, p.Labels) {
			if k := runtime.KeyOf(s); !slices.Contains(keys, k) {
				keys = append(keys, k)
			}
		}
	}
	add(p)
	if o != nil && !maps.Equal(o.Labels, p.Labels) {
		add(o)
	}
	return keys
}

func concerns(a, b *corev1.Pod) bool {
	return isReady(a) != isReady(b) || (a.DeletionTimestamp == nil) != (b.DeletionTimestamp == nil) || a.Spec.NodeName != b.Spec.NodeName ||
		a.Status.Phase != b.Status.Phase || !equality.Semantic.DeepEqual(a.Status.PodIPs, b.Status.PodIPs) || !equality.Semantic.DeepEqual(a.Labels, b.Labels)
}

func (c *controller) reconcile(ctx context.Context, key runtime.Key) (time.Duration, error) {
	svc, err := c.services.Services(key.Namespace).Get(key.Name)
	if apierrors.IsNotFound(err) {
		return 0, nil // its slices go with it: it owns them
	}
	if err != nil || svc.DeletionTimestamp != nil || svc.Spec.Type == corev1.ServiceTypeExternalName || len(svc.Spec.Selector) == 0 {
		return 0, err
	}
	if !c.expect.Met(key, time.Now()) {
		return 0, nil // the slice on its way brings the key back
	}
	s := Snapshot{Service: svc, Zones: map[string]string{}, Pods: c.podsOf(svc.Namespace, svc.Spec.Selector), Slices: c.slicesOf(key.String())}
	for _, p := range s.Pods {
		if n, err := c.nodes.Get(p.Spec.NodeName); err == nil {
			s.Zones[n.Name] = n.Labels[corev1.LabelTopologyZone]
		}
	}
	p := decide(s)
	if text := p.String(); text != "" {
		slog.Debug("endpoint slices", "service", key.String(), "plan", text)
	}
	return 0, c.apply(ctx, key, svc, p)
}

func (c *controller) apply(ctx context.Context, key runtime.Key, svc *corev1.Service, p Plan) error {
	client := c.Client.DiscoveryV1().EndpointSlices(svc.Namespace)
	var errs []error
	c.expect.Creates(key, len(p.Create), time.Now())
	for _, s := range p.Create {
		if _, err := client.Create(ctx, s, metav1.CreateOptions{}); err != nil {
			c.expect.Created(key, 1)
			if !apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
				errs = append(errs, err)
			}
		}
	}
	for _, s := range p.Update {
		if _, err := client.Update(ctx, s, metav1.UpdateOptions{}); err != nil && !apierrors.IsNotFound(err) {
			errs = append(errs, err)
		}
	}
	for _, s := range p.Delete {
		// One that was made another since is wanted.
		if err := client.Delete(ctx, s.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &s.UID, ResourceVersion: &s.ResourceVersion}}); err != nil && !apierrors.IsNotFound(err) {
			errs = append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		if !runtime.LostRace(err) {
			c.Event(svc, runtime.Warning, "FailedToUpdateEndpointSlices", "Error updating Endpoint Slices for Service "+key.String()+": "+err.Error())
		}
		return err
	}
	return nil
}
