package scheduler

import (
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/tools/cache"

	"github.com/sextant-k8s/sextant/pkg/scheduler/rules"
)

// seenPod is what is left of a pod on its way into the table: a cluster's pods never stand in memory whole.
type seenPod struct {
	metav1.ObjectMeta
	digest    *rules.Pod
	node      string
	scheduler string
	ended     bool
	waiting   *v1.Pod // without the containers' particulars; nil for one that has its node
}

// podStore takes what a watch of pods tells and keeps nothing: the table and the queue are the cache.
type podStore struct {
	s     *Scheduler
	since map[string]bool // keys known to the watch; the reflector alone calls, one at a time
}

func (s *Scheduler) podReflector() *cache.Reflector {
	running, err := fields.ParseSelector("status.phase!=Succeeded,status.phase!=Failed")
	if err != nil {
		running = fields.Everything()
	}
	lw := cache.NewListWatchFromClient(s.core.RESTClient(), "pods", metav1.NamespaceAll, running)
	return cache.NewReflectorWithOptions(lw, &v1.Pod{}, &podStore{s: s, since: map[string]bool{}}, cache.ReflectorOptions{Name: "pods"})
}

// see digests a pod; it runs before any lock is taken.
func (p *podStore) see(obj any) (any, error) {
	raw, ok := obj.(*v1.Pod)
	if !ok {
		return obj, nil
	}
	out := &seenPod{
		ObjectMeta: metav1.ObjectMeta{Namespace: raw.Namespace, Name: raw.Name, UID: raw.UID, ResourceVersion: raw.ResourceVersion},
		digest:     rules.NewPod(raw), node: raw.Spec.NodeName, scheduler: raw.Spec.SchedulerName,
		ended: raw.Status.Phase == v1.PodSucceeded || raw.Status.Phase == v1.PodFailed,
	}
	if raw.Spec.NodeName == "" {
		out.waiting = p.s.keep(raw)
		return out, nil
	}
	p.s.mu.Lock()
	p.s.table.Share(out.digest)
	p.s.mu.Unlock()
	return out, nil
}

// Transformer has the reflector digest pods as they come in.
func (p *podStore) Transformer() cache.TransformFunc { return p.see }

// Add takes a new pod, or a new form of one.
func (p *podStore) Add(obj any) error {
	seen, err := p.see(obj)
	if err != nil {
		return err
	}
	if d, ok := seen.(*seenPod); ok {
		p.since[d.digest.Key] = true
		p.s.podSeen(d)
	}
	return nil
}

// Update is Add.
func (p *podStore) Update(obj any) error { return p.Add(obj) }

// Delete takes a pod's end, or its leaving the selection.
func (p *podStore) Delete(obj any) error {
	if m, ok := obj.(metav1.Object); ok {
		key := m.GetNamespace() + "/" + m.GetName()
		delete(p.since, key)
		p.s.podGone(key)
	}
	return nil
}

// Replace takes a whole list: what is not in it is gone.
func (p *podStore) Replace(list []any, _ string) error {
	old := p.since
	p.since = make(map[string]bool, len(list))
	for _, obj := range list {
		if err := p.Add(obj); err != nil {
			return err
		}
	}
	for key := range old {
		if !p.since[key] {
			p.s.podGone(key)
		}
	}
	p.s.podsListed.Store(true)
	return nil
}

// Resync has nothing to do: nothing is kept.
func (p *podStore) Resync() error { return nil }

func (s *Scheduler) podSeen(p *seenPod) {
	if p.ended {
		s.podGone(p.digest.Key)
		return
	}
	d := p.digest
	s.locked(func(now time.Time) {
		switch {
		case p.node != "":
			uid, assumed := s.assumed[d.Key]
			known := s.placed[d.Key] == d.UID || assumed && uid == d.UID
			old, there := s.table.Pod(d.Key)
			delete(s.assumed, d.Key)
			s.placed[d.Key] = d.UID
			s.queue.remove(d.Key)
			if old != nil && there == p.node && old.UID == d.UID && old.Leaving == d.Leaving && old.Start == d.Start && old.Class.ID() == d.Class.ID() {
				return
			}
			shrunk := old != nil && old.Class.ID() != d.Class.ID()
			s.table.SetPod(d, p.node)
			switch {
			case !known:
				s.happened(rules.Event{Kind: rules.PodPlaced, Node: p.node, Pod: d}, now)
			case shrunk: // another label, or less requested
				s.happened(rules.Event{Kind: rules.PodPlaced | rules.PodGone, Node: p.node, Pod: old}, now)
			}
		case s.placed[d.Key] == d.UID || s.assumed[d.Key] == d.UID:
			// An older form of a pod that has its node already.
		case d.Leaving:
			s.queue.remove(d.Key)
			s.unnominate(d, now)
		default:
			if _, ours := s.config.profiles[p.scheduler]; !ours {
				return
			}
			if node := p.waiting.Status.NominatedNodeName; node != "" {
				s.table.Nominate(d, node)
			}
			s.queue.set(d, p.waiting, now)
		}
	})
}

// unnominate gives up the room kept for a pod; others may want it.
func (s *Scheduler) unnominate(d *rules.Pod, now time.Time) {
	if node := s.table.Unnominate(d.Key); node != "" {
		s.happened(rules.Event{Kind: rules.PodGone, Node: node, Pod: d}, now)
	}
}

func (s *Scheduler) podGone(key string) {
	s.locked(func(now time.Time) {
		delete(s.assumed, key)
		delete(s.placed, key)
		if w := s.queue.find(key); w != nil {
			s.unnominate(w.pod, now)
		}
		s.queue.remove(key)
		s.explained.drop(key)
		if p, node := s.table.Pod(key); p != nil {
			s.table.DeletePod(key)
			s.happened(rules.Event{Kind: rules.PodGone, Node: node, Pod: p}, now)
		}
	})
}

// keep answers what is kept of a waiting pod beside its digest: extenders are sent it whole.
func (s *Scheduler) keep(p *v1.Pod) *v1.Pod {
	if len(s.extenders) > 0 {
		p.ManagedFields = nil
		return p
	}
	return &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: p.Namespace, Name: p.Name, UID: p.UID, ResourceVersion: p.ResourceVersion, Generation: p.Generation},
		Spec:       v1.PodSpec{SchedulerName: p.Spec.SchedulerName, SchedulingGates: p.Spec.SchedulingGates},
		Status:     v1.PodStatus{Conditions: p.Status.Conditions, NominatedNodeName: p.Status.NominatedNodeName},
	}
}
