package disruption

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// patience is how long an eviction that was allowed counts before the pod's deletion is seen, and a pod is believed that it is taken away.
const patience = 2 * time.Minute

// Owner is what controls pods and says how many there are to be. Its zero UID means a pod that nobody scales.
type Owner struct {
	UID   types.UID
	Scale int32
	// Unknown says why the scale could not be told, "" if it could.
	Unknown string
}

// Snapshot is what a decision is made on.
type Snapshot struct {
	Budget *policyv1.PodDisruptionBudget
	Pods   []*corev1.Pod       // those it selects
	Owners map[types.UID]Owner // by pod
	Now    time.Time
}

// Plan is what is to be written.
type Plan struct {
	Status *policyv1.PodDisruptionBudgetStatus // nil if it stays
	Failed string                              // why the budget cannot be kept, "" if it can
	Again  time.Duration
	// Unmanaged says that pods without an owner are among those of which a part is to stay.
	Unmanaged bool
}

// String shows the plan as logs and tests do.
func (p Plan) String() string {
	var b strings.Builder
	if p.Unmanaged {
		b.WriteString("some pods have no owner\n")
	}
	if p.Failed != "" {
		fmt.Fprintf(&b, "failed: %s\n", p.Failed)
	}
	if s := p.Status; s != nil {
		fmt.Fprintf(&b, "status expected=%d desired=%d current=%d allowed=%d\n", s.ExpectedPods, s.DesiredHealthy, s.CurrentHealthy, s.DisruptionsAllowed)
		names := make([]string, 0, len(s.DisruptedPods))
		for n := range s.DisruptedPods {
			names = append(names, n)
		}
		slices.Sort(names)
		for _, n := range names {
			fmt.Fprintf(&b, "  on its way out: %s\n", n)
		}
		for _, c := range s.Conditions {
			fmt.Fprintf(&b, "  %s=%s %s\n", c.Type, c.Status, c.Reason)
		}
	}
	if p.Again > 0 {
		fmt.Fprintf(&b, "again in %s\n", p.Again)
	}
	return b.String()
}

// decide says how many pods of a budget may be evicted now.
func decide(s Snapshot) Plan {
	next := s.Budget.Status.DeepCopy()
	expected, desired, failed := demand(s)
	if failed != "" {
		// What cannot be counted is protected.
		next.DisruptionsAllowed = 0
		p := Plan{Failed: failed}
		condition(next, s, policyv1.SyncFailedReason, failed)
		if !equality.Semantic.DeepEqual(&s.Budget.Status, next) {
			p.Status = next
		}
		return p
	}
	p := Plan{Unmanaged: unmanaged(s)}
	leaving := map[string]metav1.Time{}
	for _, pod := range s.Pods {
		at, ok := s.Budget.Status.DisruptedPods[pod.Name]
		if !ok || pod.DeletionTimestamp != nil {
			continue
		}
		left := at.Add(patience).Sub(s.Now)
		if left <= 0 {
			continue // it was not deleted after all
		}
		leaving[pod.Name] = at
		if p.Again == 0 || left < p.Again {
			p.Again = left
		}
	}
	current := int32(0)
	for _, pod := range s.Pods {
		if _, out := leaving[pod.Name]; !out && pod.DeletionTimestamp == nil && ready(pod) {
			current++
		}
	}
	next.ExpectedPods, next.DesiredHealthy, next.CurrentHealthy = expected, desired, current
	next.DisruptionsAllowed = 0
	if expected > 0 {
		next.DisruptionsAllowed = max(0, current-desired)
	}
	next.DisruptedPods, next.ObservedGeneration = leaving, s.Budget.Generation
	if len(leaving) == 0 {
		next.DisruptedPods = nil
	}
	if next.DisruptionsAllowed > 0 {
		condition(next, s, policyv1.SufficientPodsReason, "")
	} else {
		condition(next, s, policyv1.InsufficientPodsReason, "")
	}
	if !equality.Semantic.DeepEqual(&s.Budget.Status, next) {
		p.Status = next
	}
	return p
}

// demand answers how many pods there are to be, and how many of them have to be healthy.
func demand(s Snapshot) (expected, desired int32, failed string) {
	spec := s.Budget.Spec
	switch {
	case spec.MaxUnavailable != nil:
		if expected, failed = scale(s); failed != "" {
			return 0, 0, failed
		}
		n, err := intstr.GetScaledValueFromIntOrPercent(spec.MaxUnavailable, int(expected), true)
		if err != nil {
			return 0, 0, err.Error()
		}
		return expected, max(0, expected-int32(n)), ""
	case spec.MinAvailable != nil && spec.MinAvailable.Type == intstr.Int:
		return int32(len(s.Pods)), spec.MinAvailable.IntVal, ""
	case spec.MinAvailable != nil:
		if expected, failed = scale(s); failed != "" {
			return 0, 0, failed
		}
		n, err := intstr.GetScaledValueFromIntOrPercent(spec.MinAvailable, int(expected), true)
		if err != nil {
			return 0, 0, err.Error()
		}
		return expected, int32(n), ""
	}
	return int32(len(s.Pods)), 1, "" // a budget that says nothing keeps one
}

// unmanaged tells whether a part of the pods is to stay, and some of them have no owner that says how many that is of.
func unmanaged(s Snapshot) bool {
	if n := s.Budget.Spec.MinAvailable; s.Budget.Spec.MaxUnavailable == nil && (n == nil || n.Type == intstr.Int) {
		return false
	}
	return slices.ContainsFunc(s.Pods, func(p *corev1.Pod) bool {
		_, ok := s.Owners[p.UID]
		return !ok
	})
}

// scale adds up what the pods' owners ask for, each owner once.
func scale(s Snapshot) (int32, string) {
	seen, n := map[types.UID]bool{}, int32(0)
	for _, pod := range s.Pods {
		o, ok := s.Owners[pod.UID]
		if !ok || seen[o.UID] {
			continue // a pod without an owner is not counted on
		}
		if o.Unknown != "" {
			return 0, o.Unknown
		}
		seen[o.UID] = true
		n += o.Scale
	}
	return n, ""
}

func condition(status *policyv1.PodDisruptionBudgetStatus, s Snapshot, reason, message string) {
	c := metav1.Condition{
		Type: policyv1.DisruptionAllowedCondition, Status: metav1.ConditionFalse, Reason: reason, Message: message,
		ObservedGeneration: s.Budget.Generation, LastTransitionTime: metav1.NewTime(s.Now.Truncate(time.Second)),
	}
	if reason == policyv1.SufficientPodsReason {
		c.Status = metav1.ConditionTrue
	}
	meta.SetStatusCondition(&status.Conditions, c)
}

func ready(p *corev1.Pod) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// stale tells whether a pod says that it is taken away though nobody deleted it, and how long that is still believed. What its own kubelet
// says is believed for ever, since a pod may take any time to end; and of one that has ended it does not matter.
func stale(p *corev1.Pod, now time.Time) (says bool, left time.Duration) {
	if p.DeletionTimestamp != nil || p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed {
		return false, 0
	}
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.DisruptionTarget && c.Status == corev1.ConditionTrue && c.Reason != corev1.PodReasonTerminationByKubelet {
			return true, max(0, c.LastTransitionTime.Add(patience).Sub(now))
		}
	}
	return false, 0
}
