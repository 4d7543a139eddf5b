package scheduler

import (
	"iter"
	"maps"
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
	gang      string // namespace/name of its pod group
	ended     bool
	waiting   *v1.Pod // without the containers' particulars; nil for one that has its node
}

// podStore takes what a watch of pods tells and keeps nothing: the table and the queue are the cache.
type podStore struct{ s *Scheduler }

func (s *Scheduler) podReflector() *cache.Reflector {
	running, err := fields.ParseSelector("status.phase!=Succeeded,status.phase!=Failed")
	if err != nil {
		running = fields.Everything()
	}
	n := &need{what: "pods", had: s.podsListed.Load}
	s.await(n)
	return cache.NewReflectorWithOptions(listed(s.core.RESTClient(), "pods", running, n), &v1.Pod{}, &podStore{s}, cache.ReflectorOptions{Name: "pods"})
}

// see digests a pod; it runs before any lock is taken.
func (p *podStore) see(obj any) (any, error) {
	raw, ok := obj.(*v1.Pod)
	if !ok {
		return obj, nil
	}
	out := &seenPod{
		ObjectMeta: metav1.ObjectMeta{Namespace: raw.Namespace, Name: raw.Name, UID: raw.UID, ResourceVersion: raw.ResourceVersion},
		digest:     rules.NewPod(raw), node: raw.Spec.NodeName, scheduler: raw.Spec.SchedulerName, gang: gangOf(raw),
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
		p.s.podSeen(d)
	}
	return nil
}

// Update is Add.
func (p *podStore) Update(obj any) error { return p.Add(obj) }

// Delete takes a pod's end, or its leaving the selection.
func (p *podStore) Delete(obj any) error {
	if m, ok := obj.(metav1.Object); ok {
		p.s.podGone(m.GetNamespace() + "/" + m.GetName())
	}
	return nil
}

// Replace takes a whole list: what is not in it is gone.
func (p *podStore) Replace(list []any, _ string) error {
	listed := make(map[string]struct{}, len(list))
	for i, obj := range list {
		seen, err := p.see(obj)
		if err != nil {
			return err
		}
		if d, ok := seen.(*seenPod); ok {
			listed[d.digest.Key] = struct{}{}
			p.s.podSeen(d)
		}
		list[i] = nil
	}
	var gone []string
	p.s.mu.Lock()
	for _, known := range []iter.Seq[string]{p.s.table.Pods(), maps.Keys(p.s.queue.all)} {
		for key := range known {
			if _, ok := listed[key]; !ok {
				gone = append(gone, key)
			}
		}
	}
	p.s.mu.Unlock()
	for _, key := range gone {
		p.s.podGone(key)
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
			old, there := s.table.Pod(d.Key)
			known := old != nil && old.UID == d.UID
			delete(s.assumed, d.Key)
			s.queue.remove(d.Key)
			s.gangs.join(p.gang, d.Key)
			if known && there == p.node && old.Leaving == d.Leaving && old.Start == d.Start && old.Class.ID() == d.Class.ID() {
				return
			}
			shrunk := known && old.Class.ID() != d.Class.ID()
			s.table.SetPod(d, p.node)
			switch {
			case !known:
				s.happened(rules.Event{Kind: rules.PodPlaced, Node: p.node, Pod: d}, now)
			case shrunk: // another label, or less requested: as if one went and another came
				s.happened(rules.Event{Kind: rules.PodGone, Node: p.node, Pod: old}, now)
				s.happened(rules.Event{Kind: rules.PodPlaced, Node: p.node, Pod: d}, now)
			}
		case s.stands(d):
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
			if p.gang != "" {
				s.gangs.join(p.gang, d.Key)
				s.wakeGang(p.gang, now)
			}
		}
	})
}

// stands says whether a pod has its node already, as seen or assumed.
func (s *Scheduler) stands(d *rules.Pod) bool {
	p, _ := s.table.Pod(d.Key)
	return p != nil && p.UID == d.UID
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
		s.gangs.leave(key)
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
		Spec:       v1.PodSpec{SchedulerName: p.Spec.SchedulerName, SchedulingGates: p.Spec.SchedulingGates, SchedulingGroup: p.Spec.SchedulingGroup},
		Status:     v1.PodStatus{Conditions: p.Status.Conditions, NominatedNodeName: p.Status.NominatedNodeName},
	}
}
