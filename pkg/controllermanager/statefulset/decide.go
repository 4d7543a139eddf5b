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
	"k8s.io/apimachinery/pkg/util/intstr"
)

// Snapshot is what a decision is made on.
type Snapshot struct {
	Set     *appsv1.StatefulSet
	Pods    []*corev1.Pod                   // those it controls
	Claims  []*corev1.PersistentVolumeClaim // those of its pods
	Current string                          // the name of the revision that pods below the partition have
	Update  string                          // the name of the template's revision
	Now     time.Time
}

// Plan is what is to be done, in this order.
type Plan struct {
	Own    []*corev1.PersistentVolumeClaim // as they are to be: their owners have changed
	Delete []*corev1.Pod
	Create []Birth
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
	for _, c := range p.Own {
		fmt.Fprintf(&b, "claim %s belongs to", c.Name)
		for _, r := range c.OwnerReferences {
			fmt.Fprintf(&b, " %s %s", r.Kind, r.Name)
		}
		if len(c.OwnerReferences) == 0 {
			b.WriteString(" nobody")
		}
		b.WriteString("\n")
	}
	for _, d := range p.Delete {
		fmt.Fprintf(&b, "delete %s\n", d.Name)
	}
	for _, c := range p.Create {
		fmt.Fprintf(&b, "create %d at %s\n", c.Ordinal, c.Revision)
	}
	if s := p.Status; s != nil {
		fmt.Fprintf(&b, "status replicas=%d ready=%d available=%d current=%d of %s updated=%d of %s\n", s.Replicas, s.ReadyReplicas, s.AvailableReplicas,
			s.CurrentReplicas, s.CurrentRevision, s.UpdatedReplicas, s.UpdateRevision)
	}
	if p.Again > 0 {
		fmt.Fprintf(&b, "again in %s\n", p.Again)
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

func finished(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodFailed || p.Status.Phase == corev1.PodSucceeded
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

// newTurn reads from a set which numbers its pods are to have.
func newTurn(s Snapshot) *turn {
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
	return t
}

// decide brings a set's pods to their numbers and template: one at a time and in order, unless the set asks otherwise.
func decide(s Snapshot) Plan {
	t := newTurn(s)
	if s.Set.DeletionTimestamp == nil {
		t.own()
		if t.fill() && t.shrink() {
			t.roll()
		}
	}
	t.status()
	return t.plan
}

func (t *turn) parallel() bool { return t.Set.Spec.PodManagementPolicy == appsv1.ParallelPodManagement }

func (t *turn) rolling() bool {
	return t.Set.Spec.UpdateStrategy.Type != appsv1.OnDeleteStatefulSetStrategyType
}

func (t *turn) inRange(n int) bool { return n >= t.first && n < t.first+t.want }

// revision is what a pod of an ordinal is made from.
func (t *turn) revision(n int) string {
	if t.rolling() && n < t.first+t.partition {
		return t.Current
	}
	return t.Update
}

// fill makes the missing pods; it tells whether the next step may be taken.
func (t *turn) fill() bool {
	for n := t.first; n < t.first+t.want; n++ {
		p := t.byOrdinal[n]
		switch {
		case p == nil:
			t.plan.Create = append(t.plan.Create, Birth{n, t.revision(n)})
			if !t.parallel() {
				return false
			}
		case finished(p):
			if p.DeletionTimestamp == nil {
				t.plan.Delete = append(t.plan.Delete, p) // made anew when it is gone
			}
			if !t.parallel() {
				return false
			}
		case !t.parallel() && (p.DeletionTimestamp != nil || !t.available(p)):
			// Every pod waits for those before it. Only one that is broken and of an old template is replaced: nothing else
			// would ever heal it.
			if t.rolling() && p.DeletionTimestamp == nil && n >= t.first+t.partition && revisionOf(p) != t.Update {
				if _, ok := readySince(p); !ok {
					t.plan.Delete = append(t.plan.Delete, p)
				}
			}
			return false
		}
	}
	return true
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

// shrink ends the pods beyond the number, the last first; it tells whether there were none. In order, a sick one that is
// to go stops the others, unless it is the only sick one.
func (t *turn) shrink() bool {
	var extra []int
	sick := -1 // the first that is not well
	for n, p := range t.byOrdinal {
		if t.inRange(n) {
			continue
		}
		extra = append(extra, n)
		if _, ok := readySince(p); (!ok || p.DeletionTimestamp != nil) && (sick < 0 || n < sick) {
			sick = n
		}
	}
	slices.SortFunc(extra, func(a, b int) int { return b - a })
	for _, n := range extra {
		p := t.byOrdinal[n]
		if !t.parallel() {
			if _, ok := readySince(p); p.DeletionTimestamp == nil && (ok || n == sick) {
				t.plan.Delete = append(t.plan.Delete, p)
			}
			return false
		}
		if p.DeletionTimestamp == nil {
			t.plan.Delete = append(t.plan.Delete, p)
		}
	}
	return len(extra) == 0
}

// roll replaces pods of old templates, the last first, as many at once as may be missing. Those that do not serve anyway
// cost nothing.
func (t *turn) roll() {
	if !t.rolling() {
		return
	}
	missing := 0
	for n := t.first; n < t.first+t.want; n++ {
		if p := t.byOrdinal[n]; p == nil || finished(p) || !t.available(p) {
			missing++
		}
	}
	room := t.unavailable() - missing
	for n := t.first + t.want - 1; n >= t.first+t.partition; n-- {
		p := t.byOrdinal[n]
		if p == nil || p.DeletionTimestamp != nil || finished(p) || revisionOf(p) == t.Update {
			continue
		}
		if _, ok := readySince(p); ok {
			if room <= 0 {
				continue
			}
			room--
		}
		t.plan.Delete = append(t.plan.Delete, p)
	}
}

// unavailable is how many pods may be missing in an update, one at least.
func (t *turn) unavailable() int {
	u := t.Set.Spec.UpdateStrategy.RollingUpdate
	if u == nil || u.MaxUnavailable == nil {
		return 1
	}
	n, err := intstr.GetScaledValueFromIntOrPercent(u.MaxUnavailable, t.want, false)
	if err != nil {
		return 1
	}
	return max(1, n)
}

func (t *turn) status() {
	s := t.Set.Status.DeepCopy()
	s.Replicas, s.ReadyReplicas, s.AvailableReplicas, s.CurrentReplicas, s.UpdatedReplicas = 0, 0, 0, 0, 0
	s.ObservedGeneration, s.UpdateRevision, s.CurrentRevision = t.Set.Generation, t.Update, t.Current
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
	if t.rolling() && int(s.UpdatedReplicas) == t.want && int(s.ReadyReplicas) == t.want && int(s.Replicas) == t.want {
		s.CurrentReplicas, s.CurrentRevision = s.UpdatedReplicas, s.UpdateRevision
	}
	if s.CollisionCount == nil {
		s.CollisionCount = new(int32(0))
	}
	if !equality.Semantic.DeepEqual(*s, t.Set.Status) {
		t.plan.Status = s
	}
}
