package scheduler

import (
	"context"
	"log/slog"
	"runtime/debug"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	resourcev1 "k8s.io/api/resource/v1"
	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"github.com/sextant-k8s/sextant/pkg/scheduler/rules"
)

// slim drops what nobody reads here from an object before it is kept.
func (s *Scheduler) slim(obj any) (any, error) {
	if m, err := meta.Accessor(obj); err == nil {
		m.SetManagedFields(nil)
	}
	switch o := obj.(type) {
	case *v1.Node:
		s.mu.Lock()
		s.table.ShareImages(o)
		s.mu.Unlock()
		if len(s.extenders) > 0 { // they are told of nodes whole
			return o, nil
		}
		n := &v1.Node{ObjectMeta: named(o.ObjectMeta), Spec: v1.NodeSpec{Taints: o.Spec.Taints, Unschedulable: o.Spec.Unschedulable},
			Status: v1.NodeStatus{Allocatable: o.Status.Allocatable, Images: o.Status.Images, DeclaredFeatures: o.Status.DeclaredFeatures}}
		n.Labels = o.Labels
		return n, nil
	case *v1.Service:
		return &v1.Service{ObjectMeta: named(o.ObjectMeta), Spec: v1.ServiceSpec{Selector: o.Spec.Selector}}, nil
	case *v1.ReplicationController:
		return &v1.ReplicationController{ObjectMeta: named(o.ObjectMeta), Spec: v1.ReplicationControllerSpec{Selector: o.Spec.Selector}}, nil
	case *appsv1.ReplicaSet:
		return &appsv1.ReplicaSet{ObjectMeta: named(o.ObjectMeta), Spec: appsv1.ReplicaSetSpec{Selector: o.Spec.Selector}}, nil
	case *appsv1.StatefulSet:
		return &appsv1.StatefulSet{ObjectMeta: named(o.ObjectMeta), Spec: appsv1.StatefulSetSpec{Selector: o.Spec.Selector}}, nil
	}
	return obj, nil
}

func named(o metav1.ObjectMeta) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: o.Namespace, Name: o.Name, UID: o.UID, ResourceVersion: o.ResourceVersion}
}

// watched runs one kind through its informer into the table: set gets each object as it is now, and nil when it is gone; it runs with
// the lock held. An event of kind wakes waiting pods.
func watched[T any, P interface {
	*T
	runtime.Object
	metav1.Object
}](s *Scheduler, client rest.Interface, resource string, kind rules.Kind, set func(key string, o P)) cache.Store {
	tell := func(o P, gone bool) {
		key := o.GetName()
		if ns := o.GetNamespace(); ns != "" {
			key = ns + "/" + key
		}
		if gone {
			o = nil
		}
		s.locked(func(now time.Time) {
			set(key, o)
			if kind != 0 {
				s.happened(rules.Event{Kind: kind}, now)
			}
		})
	}
	n := &need{what: resource}
	store, controller := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: listed(client, resource, fields.Everything(), n), ObjectType: P(new(T)), Transform: s.slim,
		Handler: cache.ResourceEventHandlerFuncs{
			AddFunc:    func(o any) { tell(o.(P), false) },
			UpdateFunc: func(_, o any) { tell(o.(P), false) },
			DeleteFunc: func(o any) {
				if t, ok := o.(cache.DeletedFinalStateUnknown); ok {
					o = t.Obj
				}
				if p, ok := o.(P); ok {
					tell(p, true)
				}
			},
		},
	})
	n.had = controller.HasSynced
	s.await(n)
	s.controllers = append(s.controllers, controller)
	return store
}

// watchAll sets up every watch but that of pods, none running yet.
func (s *Scheduler) watchAll() {
	core, apps, storage := s.core.RESTClient(), s.apps.RESTClient(), s.storage.RESTClient()
	t := s.table
	s.nodes = watched(s, core, "nodes", 0, func(key string, n *v1.Node) { s.nodeSeen(key, n) })
	watched(s, core, "namespaces", 0, func(key string, n *v1.Namespace) {
		if n == nil {
			t.DeleteNamespace(key)
		} else {
			t.SetNamespace(key, n.Labels)
		}
	})
	watched(s, core, "services", 0, func(key string, o *v1.Service) {
		ns, name, _ := cache.SplitMetaNamespaceKey(key)
		if o == nil {
			t.SetService(ns, name, nil)
		} else {
			t.SetService(ns, name, o.Spec.Selector)
		}
	})
	watched(s, core, "replicationcontrollers", 0, func(key string, o *v1.ReplicationController) {
		if o == nil || len(o.Spec.Selector) == 0 {
			s.owner("ReplicationController", key, nil)
		} else {
			s.owner("ReplicationController", key, &metav1.LabelSelector{MatchLabels: o.Spec.Selector})
		}
	})
	watched(s, apps, "replicasets", 0, func(key string, o *appsv1.ReplicaSet) {
		if o == nil {
			s.owner("ReplicaSet", key, nil)
		} else {
			s.owner("ReplicaSet", key, o.Spec.Selector)
		}
	})
	watched(s, apps, "statefulsets", 0, func(key string, o *appsv1.StatefulSet) {
		if o == nil {
			s.owner("StatefulSet", key, nil)
		} else {
			s.owner("StatefulSet", key, o.Spec.Selector)
		}
	})
	watched(s, core, "persistentvolumeclaims", rules.StorageChanged, func(key string, o *v1.PersistentVolumeClaim) {
		t.Storage.SetClaim(key, o)
		s.storageMoved()
	})
	watched(s, core, "persistentvolumes", rules.StorageChanged, func(key string, o *v1.PersistentVolume) {
		t.Storage.SetVolume(key, o)
		s.storageMoved()
	})
	watched(s, storage, "storageclasses", rules.StorageChanged, t.Storage.SetClass)
	watched(s, storage, "csinodes", rules.StorageChanged, t.Storage.SetNode)
	watched(s, storage, "csidrivers", rules.StorageChanged, t.Storage.SetDriver)
	watched(s, storage, "csistoragecapacities", rules.StorageChanged, t.Storage.SetCapacity)
	watched(s, s.policy.RESTClient(), "poddisruptionbudgets", 0, func(key string, o *policyv1.PodDisruptionBudget) { t.SetBudget(key, budget(o)) })
}

// watchDevices sets up the watches of device claims, where the cluster serves them, and of taint rules if it has those.
func (s *Scheduler) watchDevices(ruled bool) {
	resource, t := s.resource.RESTClient(), s.table
	watched(s, resource, "resourceclaims", rules.DevicesChanged, func(key string, o *resourcev1.ResourceClaim) {
		t.Devices.SetClaim(key, o)
		s.storageMoved()
	})
	watched(s, resource, "resourceslices", rules.DevicesChanged, t.Devices.SetSlice)
	watched(s, resource, "deviceclasses", rules.DevicesChanged, t.Devices.SetClass)
	if ruled {
		watched(s, resource, "devicetaintrules", rules.DevicesChanged, t.Devices.SetTaintRule)
	}
}

// budget is how preemption reads a PodDisruptionBudget; nil for none.
func budget(o *policyv1.PodDisruptionBudget) *rules.Budget {
	if o == nil {
		return nil
	}
	selects, err := metav1.LabelSelectorAsSelector(o.Spec.Selector)
	if err != nil || selects.Empty() {
		return nil // it guards nobody
	}
	b := &rules.Budget{Namespace: o.Namespace, Pods: selects, Allowed: o.Status.DisruptionsAllowed, Disrupted: map[string]bool{}}
	for name := range o.Status.DisruptedPods {
		b.Disrupted[name] = true
	}
	return b
}

func (s *Scheduler) owner(kind, key string, selects *metav1.LabelSelector) {
	ns, name, _ := cache.SplitMetaNamespaceKey(key)
	if selects == nil {
		s.table.SetOwner(kind, ns, name, nil)
		return
	}
	if sel, err := metav1.LabelSelectorAsSelector(selects); err == nil {
		s.table.SetOwner(kind, ns, name, sel)
	}
}

// nodeSeen takes a node's new form, nil when it is gone.
func (s *Scheduler) nodeSeen(key string, n *v1.Node) {
	if n == nil {
		s.table.DeleteNode(key)
		return
	}
	kind := rules.NodeChanged
	if s.table.Node(key) == nil {
		kind = rules.NodeAdded
	}
	if s.table.SetNode(n) {
		s.happened(rules.Event{Kind: kind, Node: key}, time.Now())
	}
}

// locked runs f with the lock held and wakes the loop.
func (s *Scheduler) locked(f func(now time.Time)) {
	s.mu.Lock()
	f(time.Now())
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// happened wakes the waiting pods that an event can help. The lock is held.
func (s *Scheduler) happened(e rules.Event, now time.Time) {
	if len(s.queue.all) == 0 {
		return
	}
	began := time.Now()
	s.queue.event(now, e, func(w *waiting) bool { return s.helps(w, e) })
	s.metrics.events.WithLabelValues(eventName(e.Kind)).Observe(time.Since(began).Seconds())
}

// helps says whether an event may make a waiting pod fit: for one of the plugins that refused it. The lock is held.
func (s *Scheduler) helps(w *waiting, e rules.Event) bool {
	for i := range w.rejectors {
		began := time.Now()
		yes := s.table.Helps(w.pod, s.config.profiles[w.raw.Spec.SchedulerName], w.rejectors[i:i+1], e)
		hint := "QueueSkip"
		if yes {
			hint = "Queue"
		}
		s.metrics.hints.WithLabelValues(w.rejectors[i], eventName(e.Kind), hint).Observe(time.Since(began).Seconds())
		if yes {
			return true
		}
	}
	return e.Kind&rules.PodChanged != 0
}

// runWatches runs them all until ctx ends and says when they are filled.
func (s *Scheduler) runWatches(ctx context.Context) {
	s.watchAll()
	// The first lists are several times what is kept of them: collected more eagerly, they do not set the process's size.
	eager := debug.SetGCPercent(30)
	start := func(all []cache.Controller) bool {
		filled := make([]cache.InformerSynced, len(all))
		for i, c := range all {
			s.group.Go(func() { c.RunWithContext(ctx) })
			filled[i] = c.HasSynced
		}
		return cache.WaitForCacheSync(ctx.Done(), filled...)
	}
	s.group.Go(func() { s.tellMissing(ctx) })
	s.group.Go(func() {
		if !start(s.controllers) {
			return
		}
		if kinds := s.served(ctx, resourcev1.SchemeGroupVersion); len(kinds) > 0 {
			first := len(s.controllers)
			s.watchDevices(kinds["devicetaintrules"])
			if !start(s.controllers[first:]) {
				return
			}
		}
		if s.served(ctx, schedulingv1beta1.SchemeGroupVersion)["podgroups"] {
			first := len(s.controllers)
			s.watchGangs()
			if !start(s.controllers[first:]) {
				return
			}
		}
		// Pods come last: they should find their nodes, namespaces and claims.
		pods := s.podReflector()
		s.group.Go(func() { pods.RunWithContext(ctx) })
		if cache.WaitForCacheSync(ctx.Done(), s.podsListed.Load) {
			debug.SetGCPercent(eager)
			debug.FreeOSMemory()
			slog.Info("caches are filled")
			s.synced.Store(true)
			s.locked(func(time.Time) {})
		}
	})
}
