package scheduler

import (
	"context"
	"log/slog"
	"reflect"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"github.com/sextant-k8s/sextant/pkg/scheduler/rules"
)

// stores are the caches that decisions look things up in; pods and nodes live in the table instead.
type stores struct {
	namespaces, services, replicaSets, statefulSets, claims, volumes cache.Store
}

// slim drops what nobody reads here from an object before it is kept.
func slim(obj any) (any, error) {
	if m, err := meta.Accessor(obj); err == nil {
		m.SetManagedFields(nil)
	}
	switch o := obj.(type) {
	case *v1.Pod:
		o.Annotations = nil
		for _, containers := range [][]v1.Container{o.Spec.Containers, o.Spec.InitContainers} {
			for i := range containers {
				c := &containers[i]
				*c = v1.Container{Name: c.Name, Image: c.Image, Ports: c.Ports, Resources: c.Resources, RestartPolicy: c.RestartPolicy}
			}
		}
	case *appsv1.ReplicaSet:
		return &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Namespace: o.Namespace, Name: o.Name, UID: o.UID, ResourceVersion: o.ResourceVersion}, Spec: appsv1.ReplicaSetSpec{Selector: o.Spec.Selector}}, nil
	case *appsv1.StatefulSet:
		return &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Namespace: o.Namespace, Name: o.Name, UID: o.UID, ResourceVersion: o.ResourceVersion}, Spec: appsv1.StatefulSetSpec{Selector: o.Spec.Selector}}, nil
	}
	return obj, nil
}

// watch starts one informer and answers it.
func watch(client rest.Interface, resource, selector string, kind runtime.Object, h cache.ResourceEventHandler) (cache.Store, cache.Controller) {
	which, err := fields.ParseSelector(selector)
	if err != nil {
		which = fields.Everything()
	}
	return cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: cache.NewListWatchFromClient(client, resource, metav1.NamespaceAll, which),
		ObjectType:    kind, Handler: h, Transform: slim,
	})
}

// informers answers every watch of the scheduler, not yet running.
func (s *Scheduler) informers() []cache.Controller {
	var all []cache.Controller
	add := func(client rest.Interface, resource, selector string, kind runtime.Object, h cache.ResourceEventHandler) cache.Store {
		store, controller := watch(client, resource, selector, kind, h)
		all = append(all, controller)
		return store
	}
	core, apps := s.core.RESTClient(), s.apps.RESTClient()
	happened := func(event rules.Events) cache.ResourceEventHandler {
		f := func() { s.locked(func(now time.Time) { s.queue.event(event, now) }) }
		return cache.ResourceEventHandlerFuncs{AddFunc: func(any) { f() }, UpdateFunc: func(any, any) { f() }}
	}
	// Nodes first: a pod's row should find its node.
	add(core, "nodes", "", &v1.Node{}, cache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { s.nodeSeen(nil, o.(*v1.Node)) },
		UpdateFunc: func(old, o any) { s.nodeSeen(old.(*v1.Node), o.(*v1.Node)) },
		DeleteFunc: func(o any) {
			if n, ok := last(o).(*v1.Node); ok {
				s.locked(func(time.Time) { s.table.DeleteNode(n.Name) })
			}
		},
	})
	add(core, "pods", "status.phase!=Succeeded,status.phase!=Failed", &v1.Pod{}, cache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { s.podSeen(o.(*v1.Pod)) },
		UpdateFunc: func(_, o any) { s.podSeen(o.(*v1.Pod)) },
		DeleteFunc: func(o any) {
			if p, ok := last(o).(*v1.Pod); ok {
				s.podGone(p)
			}
		},
	})
	none := cache.ResourceEventHandlerFuncs{}
	s.stores = stores{
		namespaces:   add(core, "namespaces", "", &v1.Namespace{}, none),
		services:     add(core, "services", "", &v1.Service{}, none),
		replicaSets:  add(apps, "replicasets", "", &appsv1.ReplicaSet{}, none),
		statefulSets: add(apps, "statefulsets", "", &appsv1.StatefulSet{}, none),
		claims:       add(core, "persistentvolumeclaims", "", &v1.PersistentVolumeClaim{}, happened(rules.VolumeChanged)),
		volumes:      add(core, "persistentvolumes", "", &v1.PersistentVolume{}, happened(rules.VolumeChanged)),
	}
	return all
}

// last answers the object behind a tombstone.
func last(o any) any {
	if t, ok := o.(cache.DeletedFinalStateUnknown); ok {
		return t.Obj
	}
	return o
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

func (s *Scheduler) nodeSeen(old, n *v1.Node) {
	event := rules.NodeAdded
	if old != nil {
		event = 0
		if old.Spec.Unschedulable != n.Spec.Unschedulable || !reflect.DeepEqual(old.Spec.Taints, n.Spec.Taints) ||
			!reflect.DeepEqual(old.Labels, n.Labels) || !reflect.DeepEqual(old.Status.Allocatable, n.Status.Allocatable) {
			event = rules.NodeChanged
		}
	}
	s.locked(func(now time.Time) {
		s.table.SetNode(n)
		if event != 0 {
			s.queue.event(event, now)
		}
	})
}

func (s *Scheduler) podSeen(p *v1.Pod) {
	if p.Status.Phase == v1.PodSucceeded || p.Status.Phase == v1.PodFailed {
		s.podGone(p)
		return
	}
	d := rules.NewPod(p)
	s.locked(func(now time.Time) {
		switch {
		case p.Spec.NodeName != "":
			_, assumed := s.assumed[d.Key]
			_, known := s.placed[d.Key]
			delete(s.assumed, d.Key)
			s.placed[d.Key] = p.UID
			s.queue.remove(d.Key)
			s.table.SetPod(d, p.Spec.NodeName)
			if !assumed && !known {
				s.queue.event(rules.PodPlaced, now)
			}
		case s.placed[d.Key] == p.UID || s.assumed[d.Key] == p.UID:
			// An older form of a pod that has its node already.
		case p.DeletionTimestamp != nil:
			s.queue.remove(d.Key)
			s.table.Unnominate(d.Key)
		default:
			if _, ours := s.config.profiles[p.Spec.SchedulerName]; ours {
				if node := p.Status.NominatedNodeName; node != "" {
					s.table.Nominate(d, node)
				}
				s.queue.set(d, now)
			}
		}
	})
}

func (s *Scheduler) podGone(p *v1.Pod) {
	key := p.Namespace + "/" + p.Name
	s.locked(func(now time.Time) {
		delete(s.assumed, key)
		delete(s.placed, key)
		s.queue.remove(key)
		s.table.Unnominate(key)
		s.table.DeletePod(key)
		s.queue.event(rules.PodGone, now)
	})
}

// siblings answers what selects the pods that serve with p, nil when nothing does.
func (s *Scheduler) siblings(p *rules.Pod) labels.Selector {
	own := labels.Set(p.Labels)
	merged, found := labels.NewSelector(), false
	for _, o := range s.stores.services.List() {
		if svc := o.(*v1.Service); svc.Namespace == p.Namespace && len(svc.Spec.Selector) > 0 && labels.SelectorFromSet(svc.Spec.Selector).Matches(own) {
			requirements, _ := labels.SelectorFromSet(svc.Spec.Selector).Requirements()
			merged, found = merged.Add(requirements...), true
		}
	}
	if owner := metav1.GetControllerOf(p); owner != nil {
		var selects *metav1.LabelSelector
		key := p.Namespace + "/" + owner.Name
		switch owner.Kind {
		case "ReplicaSet":
			if o, ok, _ := s.stores.replicaSets.GetByKey(key); ok {
				selects = o.(*appsv1.ReplicaSet).Spec.Selector
			}
		case "StatefulSet":
			if o, ok, _ := s.stores.statefulSets.GetByKey(key); ok {
				selects = o.(*appsv1.StatefulSet).Spec.Selector
			}
		}
		if sel, err := metav1.LabelSelectorAsSelector(selects); err == nil && selects != nil {
			requirements, _ := sel.Requirements()
			merged, found = merged.Add(requirements...), true
		}
	}
	if !found {
		return nil
	}
	return merged
}

// claims answers what the pod's volumes demand of a node.
func (s *Scheduler) claims(p *rules.Pod) []rules.Claim {
	var out []rules.Claim
	for i := range p.Spec.Volumes {
		v := &p.Spec.Volumes[i]
		name := ""
		switch {
		case v.PersistentVolumeClaim != nil:
			name = v.PersistentVolumeClaim.ClaimName
		case v.Ephemeral != nil:
			name = p.Name + "-" + v.Name
		default:
			continue
		}
		o, ok, _ := s.stores.claims.GetByKey(p.Namespace + "/" + name)
		if !ok {
			out = append(out, rules.Claim{Problem: "persistentvolumeclaim \"" + name + "\" not found"})
			continue
		}
		claim := o.(*v1.PersistentVolumeClaim)
		switch {
		case claim.DeletionTimestamp != nil:
			out = append(out, rules.Claim{Problem: "persistentvolumeclaim \"" + name + "\" is being deleted"})
		case claim.Spec.VolumeName == "":
			out = append(out, rules.Claim{Problem: "pod has unbound immediate PersistentVolumeClaims"})
		default:
			c := rules.Claim{}
			if o, ok, _ := s.stores.volumes.GetByKey(claim.Spec.VolumeName); !ok {
				c.Problem = "persistentvolume \"" + claim.Spec.VolumeName + "\" not found"
			} else if need := o.(*v1.PersistentVolume).Spec.NodeAffinity; need != nil {
				c.Where = need.Required
			}
			out = append(out, c)
		}
	}
	return out
}

// namespaceLabels answers the labels of all namespaces.
func (s *Scheduler) namespaceLabels() map[string]labels.Set {
	list := s.stores.namespaces.List()
	out := make(map[string]labels.Set, len(list))
	for _, o := range list {
		ns := o.(*v1.Namespace)
		out[ns.Name] = ns.Labels
	}
	return out
}

// runInformers runs them all until ctx ends and says when they are filled.
func (s *Scheduler) runInformers(ctx context.Context) {
	all := s.informers()
	for _, c := range all {
		s.group.Go(func() { c.RunWithContext(ctx) })
	}
	s.group.Go(func() {
		filled := slices.Collect(func(yield func(cache.InformerSynced) bool) {
			for _, c := range all {
				if !yield(c.HasSynced) {
					return
				}
			}
		})
		if cache.WaitForCacheSync(ctx.Done(), filled...) {
			slog.Info("caches are filled")
			s.synced.Store(true)
			s.locked(func(time.Time) {})
		}
	})
}
