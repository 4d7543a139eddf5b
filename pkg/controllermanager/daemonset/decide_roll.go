package daemonset

import (
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// amount resolves how many nodes may have two pods in an update, or how many may have none that serves. A part of the
// nodes is rounded up.
func (t *turn) amount(surge bool) int {
	u := t.Set.Spec.UpdateStrategy.RollingUpdate
	if t.Set.Spec.UpdateStrategy.Type == appsv1.OnDeleteDaemonSetStrategyType {
		return 0
	}
	value := new(intstr.FromInt32(0))
	switch {
	case u != nil && surge && u.MaxSurge != nil:
		value = u.MaxSurge
	case u != nil && !surge && u.MaxUnavailable != nil:
		value = u.MaxUnavailable
	case !surge:
		value = new(intstr.FromInt32(1))
	}
	// While pods are sorted by node the number of nodes is not known yet; any part of them is one at least.
	n, err := intstr.GetScaledValueFromIntOrPercent(value, max(1, len(t.on)), true)
	if err != nil {
		return 0
	}
	return n
}

// roll replaces pods of old templates, as many at once as may be.
func (t *turn) roll() {
	if t.Set.Spec.UpdateStrategy.Type != appsv1.RollingUpdateDaemonSetStrategyType {
		return
	}
	if n := t.amount(true); n > 0 {
		t.surge(n)
		return
	}
	t.replace(max(1, t.amount(false)))
}

// replace ends old pods, each before its successor is made: those that do not serve at once, of the others as many as may
// be missing.
func (t *turn) replace(most int) {
	missing := 0
	var serving []*corev1.Pod
	for _, x := range t.on {
		switch {
		case x.old == nil:
			if !t.available(x.now) {
				missing++
			}
		case x.old.DeletionTimestamp != nil:
			missing++
		case !t.available(x.old):
			missing++
			t.end(x.old)
		default:
			serving = append(serving, x.old)
		}
	}
	for _, pod := range serving[:max(0, min(len(serving), most-missing))] {
		t.end(pod)
	}
}

// surge makes new pods beside the old ones, on as many nodes at once as may have two, and ends each old one when the new
// one serves. Where the old one does not serve anyway, the new one is made at once.
func (t *turn) surge(most int) {
	surging := 0
	var fresh []string
	for _, x := range t.on {
		switch {
		case x.old == nil:
		case x.now == nil:
			if !t.available(x.old) {
				t.plan.Create = append(t.plan.Create, x.node)
			} else {
				fresh = append(fresh, x.node)
			}
		case t.available(x.now):
			t.end(x.old)
		default:
			surging++
		}
	}
	t.plan.Create = append(t.plan.Create, fresh[:max(0, min(len(fresh), most-surging))]...)
}

// end plans the end of a pod, once.
func (t *turn) end(pod *corev1.Pod) {
	if pod.DeletionTimestamp != nil {
		return
	}
	for _, list := range [][]*corev1.Pod{t.plan.Delete, t.plan.Failed} {
		for _, have := range list {
			if have == pod {
				return
			}
		}
	}
	t.plan.Delete = append(t.plan.Delete, pod)
}
