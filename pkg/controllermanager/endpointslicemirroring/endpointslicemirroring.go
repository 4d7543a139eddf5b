// Package endpointslicemirroring shows endpoints that users wrote themselves as endpoint slices, which is what others read.
//
// Endpoints, their service or one of the slices bring the key; decide compares. Slices that were made and the cache does
// not show yet are remembered as expectations.
package endpointslicemirroring

import (
	"context"
	"errors"
	"log/slog"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	corelisters "k8s.io/client-go/listers/core/v1"
	discoverylisters "k8s.io/client-go/listers/discovery/v1"

	"github.com/sextant-k8s/sextant/pkg/controllermanager/runtime"
)

type controller struct {
	runtime.Deps
	endpoints corelisters.EndpointsLister
	services  corelisters.ServiceLister
	slices    discoverylisters.EndpointSliceLister
	expect    runtime.Expectations
}

// New answers the controller.
func New(d runtime.Deps) *runtime.Controller {
	core, slices := d.Informers.Core().V1(), d.Informers.Discovery().V1().EndpointSlices()
	c := &controller{Deps: d, endpoints: core.Endpoints().Lister(), services: core.Services().Lister(), slices: slices.Lister()}
	ofSlice := func(obj metav1.Object) []runtime.Key {
		if obj.GetLabels()[discoveryv1.LabelManagedBy] != manager {
			return nil
		}
		return []runtime.Key{{Namespace: obj.GetNamespace(), Name: obj.GetLabels()[discoveryv1.LabelServiceName]}}
	}
	return &runtime.Controller{
		Name: "endpointslice-mirroring-controller", Account: "endpointslicemirroring-controller", Queue: "endpoint_slice_mirroring", For: "endpoints that users wrote, as endpoint slices",
		Watches: []runtime.Watch{
			{What: "endpoints", Informer: core.Endpoints().Informer(), Keys: runtime.Self},
			{What: "services", Informer: core.Services().Informer(), Keys: func(old, obj metav1.Object) []runtime.Key {
				if old != nil && (old.(*corev1.Service).Spec.Selector == nil) == (obj.(*corev1.Service).Spec.Selector == nil) {
					return nil
				}
				return []runtime.Key{runtime.KeyOf(obj)}
			}},
			{What: "endpointslices", Informer: slices.Informer(), Keys: func(_, obj metav1.Object) []runtime.Key { return ofSlice(obj) },
				Born: func(obj metav1.Object) {
					for _, k := range ofSlice(obj) {
						c.expect.Created(k, 1)
					}
				}},
		},
		Writes: []string{"endpointslices"}, Reconcile: c.reconcile,
	}
}

func (c *controller) reconcile(ctx context.Context, key runtime.Key) (time.Duration, error) {
	if !c.expect.Met(key, time.Now()) {
		return 0, nil // the slice that is on its way brings the key
	}
	var s Snapshot
	var err error
	if s.Endpoints, err = c.endpoints.Endpoints(key.Namespace).Get(key.Name); apierrors.IsNotFound(err) {
		s.Endpoints = nil
	} else if err != nil {
		return 0, err
	}
	if s.Service, err = c.services.Services(key.Namespace).Get(key.Name); apierrors.IsNotFound(err) {
		s.Service = nil
	} else if err != nil {
		return 0, err
	}
	mine := labels.Set{discoveryv1.LabelServiceName: key.Name, discoveryv1.LabelManagedBy: manager}
	if s.Slices, err = c.slices.EndpointSlices(key.Namespace).List(labels.SelectorFromSet(mine)); err != nil {
		return 0, err
	}
	p := decide(s)
	if text := p.String(); text != "" {
		slog.Debug("mirrored slices", "endpoints", key.String(), "plan", text)
	}
	err = c.apply(ctx, key, p)
	if err != nil && s.Endpoints != nil && !runtime.LostRace(err) {
		c.Event(s.Endpoints, runtime.Warning, "FailedToUpdateEndpointSlices", "Error updating Endpoint Slices for Endpoints "+key.String()+": "+err.Error())
	}
	return 0, err
}

func (c *controller) apply(ctx context.Context, key runtime.Key, p Plan) error {
	client := c.Client.DiscoveryV1().EndpointSlices(key.Namespace)
	var errs []error
	for _, s := range p.Delete {
		if err := client.Delete(ctx, s.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &s.UID}}); err != nil && !apierrors.IsNotFound(err) {
			errs = append(errs, err)
		}
	}
	for _, s := range p.Update {
		if _, err := client.Update(ctx, s, metav1.UpdateOptions{}); err != nil && !apierrors.IsNotFound(err) {
			errs = append(errs, err)
		}
	}
	for _, s := range p.Create {
		c.expect.Creates(key, 1, time.Now())
		if _, err := client.Create(ctx, s, metav1.CreateOptions{}); err != nil {
			c.expect.Created(key, 1)
			if !apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}
