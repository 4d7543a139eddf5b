package statefulset

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
)

// Snapshot is what a decision is made on.
type Snapshot struct {
	Set     *appsv1.StatefulSet
	Pods    []*corev1.Pod // those it controls
	Current string        // the revision that pods below the partition have
	Update  string        // the revision of the template
	Now     time.Time
}

// Plan is what is to be done.
type Plan struct {
	Create []Birth
	Delete []*corev1.Pod
	Status *appsv1.StatefulSetStatus
	Again  time.Duration
}

// Birth is a pod to be made.
type Birth struct {
	Ordinal  int
	Revision string
}

// String shows the plan as logs and tests do.
func (p Plan) String() string {
	var b strings.Builder
	for _, c := range p.Create {
		fmt.Fprintf(&b, "create %d at %s\n", c.Ordinal, c.Revision)
	}
	for _, d := range p.Delete {
		fmt.Fprintf(&b, "delete %s\n", d.Name)
	}
	if s := p.Status; s != nil {
		fmt.Fprintf(&b, "status replicas=%d ready=%d current=%d updated=%d available=%d\n", s.Replicas, s.ReadyReplicas, s.CurrentReplicas, s.UpdatedReplicas, s.AvailableReplicas)
	}
	return b.String()
}

// ordinal answers a pod's number, -1 if its name is not one of the set's.
func ordinal(set *appsv1.StatefulSet, p *corev1.Pod) int {
	rest, ok := strings.CutPrefix(p.Name, set.Name+"-")
	if !ok {
		return -1
	}
	n, err := strconv.Atoi(rest)
	if err != nil || strconv.Itoa(n) != rest {
		return -1
	}
	return n
}

func revisionOf(p *corev1.Pod) string { return p.Labels[appsv1.ControllerRevisionHashLabelKey] }

func readySince(p *corev1.Pod) (time.Time, bool) {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.LastTransitionTime.Time, c.Status == corev1.ConditionTrue
		}
	}
	return time.Time{}, false
}

// turn is a decision being made.
type turn struct {
	Snapshot
	plan      Plan
	first     int // ordinal
	want      int
	partition int
	byOrdinal map[int]*corev1.Pod
}

// decide brings a set's pods to their numbers and template: one at a time and in order, unless the set asks otherwise.
func decide(s Snapshot) Plan {
	t := &turn{Snapshot: s, byOrdinal: map[int]*corev1.Pod{}, want: 1}
	if s.Set.Spec.Replicas != nil {
		t.want = int(*s.Set.Spec.Replicas)
	}
	if s.Set.Spec.Ordinals != nil {
		t.first = int(s.Set.Spec.Ordinals.Start)
	}
	if u := s.Set.Spec.UpdateStrategy.RollingUpdate; u != nil && u.Partition != nil {
		t.partition = int(*u.Partition)
	}
	for _, p := range s.Pods {
		if n := ordinal(s.Set, p); n >= 0 {
			t.byOrdinal[n] = p
		}
	}
	if s.Set.DeletionTimestamp == nil && t.fill() && t.shrink() {
		t.roll()
	}
	t.status()
	return t.plan
}

func (t *turn) parallel() bool { return t.Set.Spec.PodManagementPolicy == appsv1.ParallelPodManagement }

// revision is what a pod of an ordinal is made from.
func (t *turn) revision(n int) string {
	if t.Set.Spec.UpdateStrategy.Type == appsv1.RollingUpdateStatefulSetStrategyType && n < t.first+t.partition {
		return t.Current
	}
	return t.Update
}

// fill makes the missing pods; it tells whether the next step may be taken.
func (t *turn) fill() bool {
	steady := true
	for n := t.first; n < t.first+t.want; n++ {
		p := t.byOrdinal[n]
		switch {
		case p == nil:
			t.plan.Create = append(t.plan.Create, Birth{n, t.revision(n)})
			if !t.parallel() {
				return false
			}
			steady = false
		case p.Status.Phase == corev1.PodFailed || p.Status.Phase == corev1.PodSucceeded:
			if p.DeletionTimestamp == nil {
				t.plan.Delete = append(t.plan.Delete, p) // made anew when it is gone
			}
			if !t.parallel() {
				return false
			}
			steady = false
		case !t.parallel() && (p.DeletionTimestamp != nil || !t.available(p)):
			// Every pod waits for those before it; a broken one of an old template may still be replaced.
			return t.stuck()
		}
	}
	return steady || t.parallel()
}

// stuck lets an update replace a pod that does not become ready: it tells whether it may go on to that.
func (t *turn) stuck() bool {
	return t.Set.Spec.UpdateStrategy.Type == appsv1.RollingUpdateStatefulSetStrategyType
}

// available tells whether a pod has been ready for long enough.
func (t *turn) available(p *corev1.Pod) bool {
	since, ok := readySince(p)
	if !ok || p.DeletionTimestamp != nil {
		return false
	}
	left := since.Add(time.Duration(t.Set.Spec.MinReadySeconds) * time.Second).Sub(t.Now)
	if t.Set.Spec.MinReadySeconds > 0 && left > 0 {
		if t.plan.Again == 0 || left < t.plan.Again {
			t.plan.Again = left
		}
		return false
	}
	return true
}

// shrink ends the pods beyond the number, the last first; it tells whether there were none.
func (t *turn) shrink() bool {
	var extra []int
	for n := range t.byOrdinal {
		if n < t.first || n >= t.first+t.want {
			extra = append(extra, n)
		}
	}
	slices.SortFunc(extra, func(a, b int) int { return b - a })
	for _, n := range extra {
		p := t.byOrdinal[n]
		if p.DeletionTimestamp == nil {
			t.plan.Delete = append(t.plan.Delete, p)
		}
		if !t.parallel() {
			return false
		}
	}
	return len(extra) == 0
}

// roll replaces pods of old templates, the last first, waiting for each to be available.
func (t *turn) roll() {
	if t.Set.Spec.UpdateStrategy.Type != appsv1.RollingUpdateStatefulSetStrategyType {
		return
	}
	for n := t.first + t.want - 1; n >= t.first+t.partition; n-- {
		p := t.byOrdinal[n]
		switch {
		case p == nil || p.DeletionTimestamp != nil:
			return
		case revisionOf(p) != t.Update:
			t.plan.Delete = append(t.plan.Delete, p)
			return
		case !t.available(p):
			return
		}
	}
}

func (t *turn) status() {
	s := t.Set.Status.DeepCopy()
	s.Replicas, s.ReadyReplicas, s.AvailableReplicas, s.CurrentReplicas, s.UpdatedReplicas = 0, 0, 0, 0, 0
	s.ObservedGeneration, s.UpdateRevision, s.CurrentRevision = t.Set.Generation, t.name(t.Update), t.name(t.Current)
	for _, p := range t.Pods {
		if ordinal(t.Set, p) < 0 {
			continue
		}
		s.Replicas++
		if _, ok := readySince(p); ok && p.DeletionTimestamp == nil {
			s.ReadyReplicas++
		}
		if t.available(p) {
			s.AvailableReplicas++
		}
		if p.DeletionTimestamp == nil {
			if revisionOf(p) == t.Current {
				s.CurrentReplicas++
			}
			if revisionOf(p) == t.Update {
				s.UpdatedReplicas++
			}
		}
	}
	// The update is through when every pod has the new template and serves: from then on it is the current one.
	if t.Set.Spec.UpdateStrategy.Type == appsv1.RollingUpdateStatefulSetStrategyType && int(s.UpdatedReplicas) == t.want && int(s.ReadyReplicas) == t.want && int(s.Replicas) == t.want {
		s.CurrentReplicas, s.CurrentRevision = s.UpdatedReplicas, s.UpdateRevision
	}
	if s.CollisionCount == nil {
		s.CollisionCount = new(int32(0))
	}
	if !equality.Semantic.DeepEqual(*s, t.Set.Status) {
		t.plan.Status = s
	}
}

// name is a revision's name: the set's and the hash that pods carry.
func (t *turn) name(hash string) string { return t.Set.Name + "-" + hash }
