// Package resourcequota measures what quotas limit and writes it in their status; admission spends what is left.
//
// A quota whose wishes changed, or an object it counts that went or freed something, brings the quota's key; decide adds up anew. A quota
// on kinds that are not watched is measured again every few seconds by asking the apiserver how many there are.
//
// Admission writes what an object uses before the object is written, so a count may miss one that is on its way, and giving
// back what it was charged would let another one in. What frees something is written once the quota has stood still for a
// moment, and the cache shows as many objects as there are. When each was last seen to change is all the state there is; keys are worked on one at a time each, in parallel to each other.
package resourcequota

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/tools/cache"

	"github.com/sextant-k8s/sextant/pkg/controllermanager/runtime"
)

// How long a measure may be old: one of objects that are not watched, and one of those that are, where time alone frees
// what pods overdue in being deleted hold.
const (
	recount = 10 * time.Second
	resync  = 5 * time.Minute
	// What was there before a quota was asked for, and is seen here only afterwards, nobody has charged.
	secondLook = 3 * time.Second
)

// Before something is given back the quota stands still for settle, which is many times what a charged object takes to be
// seen here; where admission never pauses, it is given back after patience.
const (
	settle   = 200 * time.Millisecond
	patience = 2 * time.Second
)

// tolerance is for how long a cache that shows less than there is keeps something from being given back.
const tolerance = 10 * time.Second

// stand is how long a quota has stood still.
type stand struct {
	version string
	seen    time.Time // when that version was first seen
	since   time.Time // since when something is to be given back; zero = nothing is
	late    time.Time // since when the cache is known to be behind; zero = it is not
}

type controller struct {
	runtime.Deps
	quotas   corelisters.ResourceQuotaLister
	pods     corelisters.PodLister
	services corelisters.ServiceLister
	claims   corelisters.PersistentVolumeClaimLister
	objects  metadata.Interface

	mu     sync.Mutex // guards stands
	stands map[runtime.Key]stand
}

// New answers the controller. objects counts what is not watched.
func New(d runtime.Deps, objects metadata.Interface) *runtime.Controller {
	core := d.Informers.Core().V1()
	c := &controller{
		Deps: d, objects: objects, stands: map[runtime.Key]stand{}, quotas: core.ResourceQuotas().Lister(), pods: core.Pods().Lister(), services: core.Services().Lister(), claims: core.PersistentVolumeClaims().Lister(),
	}
	watch := func(what string, informer cache.SharedIndexInformer, changed func(old, obj metav1.Object) bool) runtime.Watch {
		// What is new admission has counted before it was there. To count again while it is on its way here would give
		// back what it spent.
		return runtime.Watch{What: what, Informer: informer, NotNew: true, Keys: func(old, obj metav1.Object) []runtime.Key {
			if old != nil && !changed(old, obj) {
				return nil
			}
			return c.beside(obj.GetNamespace())
		}}
	}
	return &runtime.Controller{
		Name: "resourcequota-controller", Account: "resourcequota-controller", Queue: "resourcequota_primary", For: "what the quotas of a namespace limit, added up",
		Watches: []runtime.Watch{
			{What: "resourcequotas", Informer: core.ResourceQuotas().Informer(), Gone: func(obj metav1.Object) { c.forget(runtime.KeyOf(obj)) }, Keys: func(old, obj metav1.Object) []runtime.Key {
				c.stood(runtime.KeyOf(obj), obj.GetResourceVersion(), time.Now())
				// What is used is written by us and by admission: it says nothing new.
				q := obj.(*corev1.ResourceQuota)
				if old != nil && equality.Semantic.DeepEqual(old.(*corev1.ResourceQuota).Spec, q.Spec) && equality.Semantic.DeepEqual(q.Spec.Hard, q.Status.Hard) {
					return nil
				}
				return []runtime.Key{runtime.KeyOf(obj)}
			}},
			watch("pods", core.Pods().Informer(), func(old, obj metav1.Object) bool {
				a, b := old.(*corev1.Pod), obj.(*corev1.Pod)
				return runtime.Finished(a) != runtime.Finished(b) || (a.DeletionTimestamp == nil) != (b.DeletionTimestamp == nil) || respecified(a, b)
			}),
			watch("services", core.Services().Informer(), func(old, obj metav1.Object) bool {
				return !equality.Semantic.DeepEqual(old.(*corev1.Service).Spec, obj.(*corev1.Service).Spec)
			}),
			watch("persistentvolumeclaims", core.PersistentVolumeClaims().Informer(), func(old, obj metav1.Object) bool {
				a, b := old.(*corev1.PersistentVolumeClaim), obj.(*corev1.PersistentVolumeClaim)
				return !equality.Semantic.DeepEqual(a.Spec, b.Spec) || !equality.Semantic.DeepEqual(a.Status.AllocatedResources, b.Status.AllocatedResources)
			}),
		},
		Writes: []string{"resourcequotas/status"}, Reconcile: c.reconcile,
	}
}

func (c *controller) beside(namespace string) []runtime.Key {
	quotas, err := c.quotas.ResourceQuotas(namespace).List(labels.Everything())
	if err != nil {
		return nil
	}
	keys := make([]runtime.Key, 0, len(quotas))
	for _, q := range quotas {
		keys = append(keys, runtime.KeyOf(q))
	}
	return keys
}

func (c *controller) reconcile(ctx context.Context, key runtime.Key) (time.Duration, error) {
	q, err := c.quotas.ResourceQuotas(key.Namespace).Get(key.Name)
	if apierrors.IsNotFound(err) {
		c.forget(key)
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	s := Snapshot{Quota: q, Now: time.Now()}
	if s.Pods, err = c.pods.Pods(q.Namespace).List(labels.Everything()); err != nil {
		return 0, err
	}
	if s.Services, err = c.services.Services(q.Namespace).List(labels.Everything()); err != nil {
		return 0, err
	}
	if s.Claims, err = c.claims.PersistentVolumeClaims(q.Namespace).List(labels.Everything()); err != nil {
		return 0, err
	}
	if s.Counts, err = c.counts(ctx, q); err != nil {
		return 0, err
	}
	again := resync
	if len(s.Counts) > 0 {
		again = recount
	}
	if !equality.Semantic.DeepEqual(q.Spec.Hard, q.Status.Hard) {
		again = secondLook
	}
	p := decide(s)
	if p.frees(q) {
		if left := c.unsettled(key, q.ResourceVersion, s.Now); left > 0 {
			return left, nil
		}
		behind, err := c.behind(ctx, s, p)
		if err != nil {
			return 0, err
		}
		if c.late(key, behind, s.Now) {
			return settle, nil
		}
	}
	if p.Status == nil {
		return again, nil
	}
	slog.Debug("resource quota", "key", key.String(), "plan", p.String())
	next := q.DeepCopy()
	next.Status = *p.Status
	_, err = c.Client.CoreV1().ResourceQuotas(q.Namespace).UpdateStatus(ctx, next, metav1.UpdateOptions{})
	return again, err
}

func (c *controller) forget(key runtime.Key) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.stands, key)
}

// stood notes that a quota was seen in a version.
func (c *controller) stood(key runtime.Key, version string, now time.Time) stand {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.stands[key]
	if s.version != version {
		s.version, s.seen = version, now
		c.stands[key] = s
	}
	return s
}

// unsettled answers how long to wait still before something is given back to a quota: not at all if that is no more than zero.
func (c *controller) unsettled(key runtime.Key, version string, now time.Time) time.Duration {
	s := c.stood(key, version, now)
	if s.since.IsZero() {
		s.since = now
	}
	left := min(settle-now.Sub(s.seen), patience-now.Sub(s.since))
	if left <= 0 {
		s.since = time.Time{}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stands[key] = s
	return left
}

// counts asks how many objects of the other resources there are. A page of one says how many remain, so nothing is carried
// over the wire; a resource that the apiserver does not have is left out.
func (c *controller) counts(ctx context.Context, q *corev1.ResourceQuota) (map[string]int64, error) {
	out := map[string]int64{}
	for name := range q.Spec.Hard {
		r := counted(name)
		if _, done := out[r]; r == "" || watched[r] || done {
			continue
		}
		gvr, ok, err := runtime.Preferred(c.Client.Discovery(), schema.ParseGroupResource(r))
		if err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		if out[r], err = c.count(ctx, gvr, q.Namespace); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// count asks how many objects of a resource a namespace has.
func (c *controller) count(ctx context.Context, gvr schema.GroupVersionResource, namespace string) (int64, error) {
	list, err := c.objects.Resource(gvr).Namespace(namespace).List(ctx, metav1.ListOptions{Limit: 1})
	if err != nil {
		return 0, fmt.Errorf("counting %s in %s: %w", gvr.Resource, namespace, err)
	}
	n := int64(len(list.Items))
	if list.RemainingItemCount != nil {
		n += *list.RemainingItemCount
	}
	return n, nil
}

// behind tells whether there are more objects than the cache shows of what a plan gives something back for: what they were
// charged would be given back with it.
func (c *controller) behind(ctx context.Context, s Snapshot, p Plan) (bool, error) {
	shown := map[string]int{"pods": len(s.Pods), "services": len(s.Services), "persistentvolumeclaims": len(s.Claims)}
	for _, r := range p.freed(s.Quota) {
		n, err := c.count(ctx, corev1.SchemeGroupVersion.WithResource(r), s.Quota.Namespace)
		if err != nil {
			return false, err
		}
		if n > int64(shown[r]) {
			return true, nil
		}
	}
	return false, nil
}

// late tells whether to wait for a cache that is behind.
func (c *controller) late(key runtime.Key, behind bool, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.stands[key]
	switch {
	case !behind:
		s.late = time.Time{}
	case s.late.IsZero():
		s.late = now
	}
	c.stands[key] = s
	return behind && now.Sub(s.late) < tolerance
}
