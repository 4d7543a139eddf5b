package replicaset

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
)

// burst bounds how many pods one reconcile creates or deletes.
const burst = 500

// Snapshot is what a decision is made on.
type Snapshot struct {
	Set *appsv1.ReplicaSet
	// Pods are those the set controls and that are not finished.
	Pods []*corev1.Pod
	// Related counts, per node, the active pods of all sets of the same owner: a scale-down evens them out.
	Related map[string]int
	// Leaving are pods whose deletion was asked for and is not in the cache yet: they are as good as terminating.
	Leaving map[types.UID]bool
	// Settled is false while the cache has not shown what was done last: then nothing is created or deleted.
	Settled bool
	Now     time.Time
}

// Plan is what is to be done.
type Plan struct {
	Create int
	Delete []*corev1.Pod
	Status *appsv1.ReplicaSetStatus // nil if it stays
	Again  time.Duration            // when to look again, 0 = at the next event
}

// String shows the plan as logs and tests do.
func (p Plan) String() string {
	var b strings.Builder
	if p.Create > 0 {
		fmt.Fprintf(&b, "create %d\n", p.Create)
	}
	for _, d := range p.Delete {
		fmt.Fprintf(&b, "delete %s\n", d.Name)
	}
	if s := p.Status; s != nil {
		fmt.Fprintf(&b, "status replicas=%d labeled=%d ready=%d available=%d\n", s.Replicas, s.FullyLabeledReplicas, s.ReadyReplicas, s.AvailableReplicas)
		for _, c := range s.Conditions {
			fmt.Fprintf(&b, "  %s=%s %s: %s\n", c.Type, c.Status, c.Reason, c.Message)
		}
	}
	if p.Again > 0 {
		fmt.Fprintf(&b, "again in %s\n", p.Again)
	}
	return b.String()
}

// decide brings the number of pods to what the set asks for.
func decide(s Snapshot) Plan {
	var p Plan
	want := int32(1)
	if s.Set.Spec.Replicas != nil {
		want = *s.Set.Spec.Replicas
	}
	var active []*corev1.Pod
	terminating := int32(0)
	for _, pod := range s.Pods {
		if pod.DeletionTimestamp != nil || s.Leaving[pod.UID] {
			terminating++
			continue
		}
		active = append(active, pod)
	}
	if s.Settled && s.Set.DeletionTimestamp == nil {
		switch diff := int(want) - len(active); {
		case diff > 0:
			p.Create = min(diff, burst)
		case diff < 0:
			// The status must not tell of pods that this plan ends: whoever counts on them would end others too.
			n := min(-diff, burst)
			active = victims(active, s.Related, s.Now)
			p.Delete, active = active[:n:n], active[n:]
			terminating += int32(n)
		}
	}
	p.status(s, active, terminating)
	return p
}

func (p *Plan) status(s Snapshot, active []*corev1.Pod, terminating int32) {
	status := s.Set.Status.DeepCopy()
	status.Replicas, status.FullyLabeledReplicas, status.ReadyReplicas, status.AvailableReplicas = int32(len(active)), 0, 0, 0
	status.TerminatingReplicas = &terminating
	wait := time.Duration(0)
	for _, pod := range active {
		if hasAll(pod.Labels, s.Set.Spec.Template.Labels) {
			status.FullyLabeledReplicas++
		}
		since, ready := readySince(pod)
		if !ready {
			continue
		}
		status.ReadyReplicas++
		left := since.Add(time.Duration(s.Set.Spec.MinReadySeconds) * time.Second).Sub(s.Now)
		if s.Set.Spec.MinReadySeconds == 0 || left <= 0 {
			status.AvailableReplicas++
			continue
		}
		if wait == 0 || left < wait {
			wait = left
		}
	}
	p.Again = wait
	status.ObservedGeneration = s.Set.Generation
	if !equality.Semantic.DeepEqual(&s.Set.Status, status) {
		p.Status = status
	}
}

// failed says in the status that what was planned could not be done, or that it can again.
func (p *Plan) failed(s Snapshot, err error) {
	status := p.Status
	if status == nil {
		status = s.Set.Status.DeepCopy()
	}
	i := slices.IndexFunc(status.Conditions, func(c appsv1.ReplicaSetCondition) bool { return c.Type == appsv1.ReplicaSetReplicaFailure })
	switch {
	case err != nil && i < 0:
		reason := "FailedCreate"
		if len(p.Delete) > 0 {
			reason = "FailedDelete"
		}
		status.Conditions = append(status.Conditions, appsv1.ReplicaSetCondition{
			Type: appsv1.ReplicaSetReplicaFailure, Status: corev1.ConditionTrue, Reason: reason, Message: err.Error(), LastTransitionTime: metav1.NewTime(s.Now.Truncate(time.Second)),
		})
	case err == nil && i >= 0:
		status.Conditions = slices.Delete(status.Conditions, i, i+1)
	default:
		return
	}
	p.Status = status
}

func hasAll(have, want map[string]string) bool {
	for k, v := range want {
		if have[k] != v {
			return false
		}
	}
	return true
}

func readySince(p *corev1.Pod) (time.Time, bool) {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.LastTransitionTime.Time, c.Status == corev1.ConditionTrue
		}
	}
	return time.Time{}, false
}

// victims sorts the pods, first those whose loss is felt least: without a node before with one, not ready before ready, cheap before
// dear, crowded before lonely, young before old.
func victims(pods []*corev1.Pod, related map[string]int, now time.Time) []*corev1.Pod {
	sorted := slices.Clone(pods)
	slices.SortStableFunc(sorted, func(a, b *corev1.Pod) int { return compare(a, b, related, now) })
	return sorted
}

func compare(a, b *corev1.Pod, related map[string]int, now time.Time) int {
	before := func(x, y bool) int { // x first
		switch {
		case x && !y:
			return -1
		case y && !x:
			return 1
		}
		return 0
	}
	if c := before(a.Spec.NodeName == "", b.Spec.NodeName == ""); c != 0 {
		return c
	}
	if c := phase(a) - phase(b); c != 0 {
		return c
	}
	aSince, aReady := readySince(a)
	bSince, bReady := readySince(b)
	if c := before(!aReady, !bReady); c != 0 {
		return c
	}
	if c := cost(a) - cost(b); c != 0 {
		return c
	}
	if a.Spec.NodeName != b.Spec.NodeName {
		if c := related[b.Spec.NodeName] - related[a.Spec.NodeName]; c != 0 {
			return c
		}
	}
	if aReady && bReady && !aSince.Equal(bSince) {
		// Ages are compared by magnitude, so that a moment's difference does not always hit the same node.
		if x, y := magnitude(now.Sub(aSince)), magnitude(now.Sub(bSince)); x != y {
			return x - y
		}
	}
	if c := restarts(b) - restarts(a); c != 0 {
		return c
	}
	if x, y := magnitude(now.Sub(a.CreationTimestamp.Time)), magnitude(now.Sub(b.CreationTimestamp.Time)); x != y {
		return x - y
	}
	return strings.Compare(string(a.UID), string(b.UID))
}

func phase(p *corev1.Pod) int {
	switch p.Status.Phase {
	case corev1.PodPending:
		return 0
	case corev1.PodRunning:
		return 2
	}
	return 1
}

// cost is what the pod's owner says its deletion costs. It is asked for in every comparison, and hardly any pod says so.
func cost(p *corev1.Pod) int {
	said, ok := p.Annotations[corev1.PodDeletionCost]
	if !ok {
		return 0
	}
	n, err := strconv.ParseInt(said, 10, 32)
	if err != nil {
		return 0
	}
	return int(n)
}

func restarts(p *corev1.Pod) int {
	n := 0
	for _, c := range p.Status.ContainerStatuses {
		n = max(n, int(c.RestartCount))
	}
	return n
}

func magnitude(d time.Duration) int {
	n := 0
	for s := int64(d / time.Second); s > 0; s >>= 1 {
		n++
	}
	return n
}

// newPod is a pod as the set makes them.
func newPod(set *appsv1.ReplicaSet, kind schema.GroupVersionKind) *corev1.Pod {
	t := set.Spec.Template.DeepCopy()
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Namespace: set.Namespace, GenerateName: prefix(set.Name), Labels: t.Labels, Annotations: t.Annotations, Finalizers: t.Finalizers,
		OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(set, kind)},
	}, Spec: t.Spec}
}

// prefix is what the pods' names begin with.
func prefix(name string) string {
	if len(name) > 57 {
		return name
	}
	return name + "-"
}
