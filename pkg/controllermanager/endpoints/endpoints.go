// Package endpoints keeps the Endpoints object of a service equal to the pods it selects, for readers older than
// endpoint slices.
//
// A service, a pod that it selects, or the object itself brings the service's key; decide compares what should be with
// what is. The object is deleted with its service. No state is kept but when a key was last brought, guarded by a mutex.
package endpoints

import (
	"context"
	"log/slog"
	"maps"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corelisters "k8s.io/client-go/listers/core/v1"

	"github.com/sextant-k8s/sextant/pkg/controllermanager/runtime"
)

type controller struct {
	runtime.Deps
	services  corelisters.ServiceLister
	endpoints corelisters.EndpointsLister

	podsOf     func(namespace string, selector map[string]string) []*corev1.Pod
	servicesOf func(namespace string, labels map[string]string) []*corev1.Service

	mu      sync.Mutex
	trigger map[runtime.Key]time.Time // the oldest change that is not written yet
}

// New answers the controller.
func New(d runtime.Deps) *runtime.Controller {
	core := d.Informers.Core().V1()
	c := &controller{
		Deps: d, services: core.Services().Lister(), endpoints: core.Endpoints().Lister(), podsOf: runtime.PodsSelected(d), servicesOf: runtime.ServicesSelecting(d),
		trigger: map[runtime.Key]time.Time{},
	}
	return &runtime.Controller{
		Name: "endpoints-controller", Account: "endpoint-controller", Queue: "endpoint", For: "the endpoints object of a service, from the pods it selects",
		Watches: []runtime.Watch{
			{What: "services", Informer: core.Services().Informer(), Keys: func(old, obj metav1.Object) []runtime.Key {
				if old == nil {
					c.changed(runtime.KeyOf(obj), obj.GetCreationTimestamp().Time)
				}
				return runtime.Self(old, obj)
			}},
			{What: "pods", Informer: core.Pods().Informer(), Keys: c.selecting},
			{What: "endpoints", Informer: core.Endpoints().Informer(), Keys: runtime.Self},
		},
		Writes: []string{"endpoints"}, Reconcile: c.reconcile,
	}
}

// changed notes when a service's pods changed; the oldest time counts, as it is what a reader waits since.
func (c *controller) changed(key runtime.Key, at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if have, ok := c.trigger[key]; !at.IsZero() && (!ok || at.Before(have)) {
		c.trigger[key] = at
	}
}

// selecting answers the services that select a pod, if something changed that concerns them.
func (c *controller) selecting(old, obj metav1.Object) []runtime.Key {
	p := obj.(*corev1.Pod)
	o, _ := old.(*corev1.Pod)
	if o != nil && same(o, p) {
		return nil
	}
	selecting := c.servicesOf(p.Namespace, p.Labels)
	if o != nil && !maps.Equal(o.Labels, p.Labels) {
		selecting = append(selecting, c.servicesOf(o.Namespace, o.Labels)...)
	}
	var keys []runtime.Key
	for _, s := range selecting {
		keys = append(keys, runtime.KeyOf(s))
		if since, ok := runtime.Ready(p); ok && (o == nil || !ready(o)) {
			c.changed(runtime.KeyOf(s), since.Time)
		}
	}
	return keys
}

// same tells that two states of a pod give the same address.
func same(a, b *corev1.Pod) bool {
	return ready(a) == ready(b) && finished(a) == finished(b) && (a.DeletionTimestamp == nil) == (b.DeletionTimestamp == nil) && a.Spec.NodeName == b.Spec.NodeName &&
		equality.Semantic.DeepEqual(a.Status.PodIPs, b.Status.PodIPs) && equality.Semantic.DeepEqual(a.Labels, b.Labels)
}

func (c *controller) reconcile(ctx context.Context, key runtime.Key) (time.Duration, error) {
	svc, err := c.services.Services(key.Namespace).Get(key.Name)
	if apierrors.IsNotFound(err) {
		c.take(key)
		return 0, c.remove(ctx, key)
	}
	// Without a selector the object is the user's own.
	if err != nil || svc.DeletionTimestamp != nil || svc.Spec.Type == corev1.ServiceTypeExternalName || len(svc.Spec.Selector) == 0 {
		return 0, err
	}
	s := Snapshot{Service: svc, Trigger: c.take(key), Pods: c.podsOf(svc.Namespace, svc.Spec.Selector)}
	if s.Have, err = c.endpoints.Endpoints(svc.Namespace).Get(svc.Name); apierrors.IsNotFound(err) {
		s.Have = nil
	} else if err != nil {
		return 0, err
	}
	p := decide(s)
	if text := p.String(); text != "" {
		slog.Debug("endpoints", "service", key.String(), "plan", text)
	}
	if err := c.apply(ctx, key, p); err != nil {
		c.changed(key, s.Trigger)
		if !runtime.LostRace(err) {
			c.Event(svc, runtime.Warning, "FailedToUpdateEndpoint", "Failed to update endpoint "+key.String()+": "+err.Error())
		}
		return 0, err
	}
	return 0, nil
}

// take answers since when a change waits, and forgets it.
func (c *controller) take(key runtime.Key) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	at := c.trigger[key]
	delete(c.trigger, key)
	return at
}

func (c *controller) apply(ctx context.Context, key runtime.Key, p Plan) error {
	client := c.Client.CoreV1().Endpoints(key.Namespace)
	if p.Create != nil {
		_, err := client.Create(ctx, p.Create, metav1.CreateOptions{})
		if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
			return nil
		}
		return err
	}
	if p.Update != nil {
		_, err := client.Update(ctx, p.Update, metav1.UpdateOptions{})
		return err
	}
	return nil
}

// remove deletes the object of a service that is gone; one that is a leader's record or of somebody else stays.
func (c *controller) remove(ctx context.Context, key runtime.Key) error {
	have, err := c.endpoints.Endpoints(key.Namespace).Get(key.Name)
	if apierrors.IsNotFound(err) || err == nil && have.Labels[managedBy] != manager {
		return nil
	}
	if err != nil {
		return err
	}
	err = c.Client.CoreV1().Endpoints(key.Namespace).Delete(ctx, key.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &have.UID}})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
