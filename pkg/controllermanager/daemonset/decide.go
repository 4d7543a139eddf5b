package daemonset

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
)

// Snapshot is what a decision is made on.
type Snapshot struct {
	Set     *appsv1.DaemonSet
	Hash    string // of the current template
	Nodes   []*corev1.Node
	Pods    []*corev1.Pod // those the set controls
	Settled bool
	Now     time.Time
}

// Plan is what is to be done.
type Plan struct {
	Create []string // nodes that get a pod
	Delete []*corev1.Pod
	Failed []*corev1.Pod // deleted because they failed: told as such
	Status *appsv1.DaemonSetStatus
	Again  time.Duration
}

// String shows the plan as logs and tests do.
func (p Plan) String() string {
	var b strings.Builder
	for _, n := range p.Create {
		fmt.Fprintf(&b, "create on %s\n", n)
	}
	for _, d := range p.Delete {
		fmt.Fprintf(&b, "delete %s\n", d.Name)
	}
	if s := p.Status; s != nil {
		fmt.Fprintf(&b, "status desired=%d current=%d ready=%d updated=%d available=%d misscheduled=%d\n",
			s.DesiredNumberScheduled, s.CurrentNumberScheduled, s.NumberReady, s.UpdatedNumberScheduled, s.NumberAvailable, s.NumberMisscheduled)
	}
	return b.String()
}

// tolerations are what every pod of a daemon set bears: it runs where others may not.
func tolerations(hostNetwork bool) []corev1.Toleration {
	out := []corev1.Toleration{
		{Key: corev1.TaintNodeNotReady, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute},
		{Key: corev1.TaintNodeUnreachable, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute},
		{Key: corev1.TaintNodeDiskPressure, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoSchedule},
		{Key: corev1.TaintNodeMemoryPressure, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoSchedule},
		{Key: corev1.TaintNodePIDPressure, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoSchedule},
		{Key: corev1.TaintNodeUnschedulable, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoSchedule},
	}
	if hostNetwork {
		out = append(out, corev1.Toleration{Key: corev1.TaintNodeNetworkUnavailable, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoSchedule})
	}
	return out
}

// fits tells whether a pod of the set is to run on a node, and whether one that runs there may stay.
func fits(set *appsv1.DaemonSet, n *corev1.Node) (run, stay bool) {
	spec := set.Spec.Template.Spec
	if spec.NodeName != "" && spec.NodeName != n.Name {
		return false, false
	}
	ok, err := nodeaffinity.GetRequiredNodeAffinity(&corev1.Pod{Spec: spec}).Match(n)
	if err != nil || !ok {
		return false, false
	}
	bears := append(tolerations(spec.HostNetwork), spec.Tolerations...)
	run, stay = true, true
	for i := range n.Spec.Taints {
		t := &n.Spec.Taints[i]
		if slices.ContainsFunc(bears, func(tol corev1.Toleration) bool { return tolerates(tol, t) }) {
			continue
		}
		switch t.Effect {
		case corev1.TaintEffectNoExecute:
			run, stay = false, false
		case corev1.TaintEffectNoSchedule:
			run = false
		}
	}
	return run, stay
}

func tolerates(tol corev1.Toleration, t *corev1.Taint) bool {
	if tol.Effect != "" && tol.Effect != t.Effect || tol.Key != "" && tol.Key != t.Key {
		return false
	}
	if tol.Key == "" {
		return tol.Operator == corev1.TolerationOpExists
	}
	return tol.Operator == corev1.TolerationOpExists || tol.Value == t.Value
}

// node answers which node a pod is for: the one it is bound to, or the one its affinity names.
func node(p *corev1.Pod) string {
	if p.Spec.NodeName != "" {
		return p.Spec.NodeName
	}
	a := p.Spec.Affinity
	if a == nil || a.NodeAffinity == nil || a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution == nil {
		return ""
	}
	for _, t := range a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms {
		for _, f := range t.MatchFields {
			if f.Key == "metadata.name" && f.Operator == corev1.NodeSelectorOpIn && len(f.Values) == 1 {
				return f.Values[0]
			}
		}
	}
	return ""
}

func ready(p *corev1.Pod) (time.Time, bool) {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.LastTransitionTime.Time, c.Status == corev1.ConditionTrue
		}
	}
	return time.Time{}, false
}

// decide has one pod on every node that the set is for, and brings old ones to the current template step by step.
func decide(s Snapshot) Plan {
	var p Plan
	on := map[string][]*corev1.Pod{}
	for _, pod := range s.Pods {
		on[node(pod)] = append(on[node(pod)], pod)
	}
	status := s.Set.Status.DeepCopy()
	status.CurrentNumberScheduled, status.DesiredNumberScheduled, status.NumberMisscheduled = 0, 0, 0
	status.NumberReady, status.NumberAvailable, status.UpdatedNumberScheduled = 0, 0, 0
	var old []*corev1.Pod // on nodes they belong on, of an old template
	unavailable := 0
	nodes := map[string]bool{}
	for _, n := range s.Nodes {
		nodes[n.Name] = true
		run, stay := fits(s.Set, n)
		live := p.clean(on[n.Name], stay)
		if !run {
			if len(live) > 0 {
				status.NumberMisscheduled++
			}
			continue
		}
		status.DesiredNumberScheduled++
		if len(live) == 0 {
			unavailable++
			p.Create = append(p.Create, n.Name)
			continue
		}
		status.CurrentNumberScheduled++
		pod := live[0]
		if !p.tally(s, status, pod) {
			unavailable++
		}
		if pod.Labels[appsv1.ControllerRevisionHashLabelKey] == s.Hash {
			status.UpdatedNumberScheduled++
		} else if pod.DeletionTimestamp == nil {
			old = append(old, pod)
		}
	}
	for name, pods := range on {
		if name != "" && !nodes[name] {
			for _, pod := range pods {
				if pod.DeletionTimestamp == nil {
					p.Delete = append(p.Delete, pod)
				}
			}
		}
	}
	p.roll(s, old, unavailable, int(status.DesiredNumberScheduled))
	status.NumberUnavailable = status.DesiredNumberScheduled - status.NumberAvailable
	status.ObservedGeneration = s.Set.Generation
	if !s.Settled || s.Set.DeletionTimestamp != nil {
		p.Create, p.Delete, p.Failed = nil, nil, nil
	}
	slices.Sort(p.Create)
	slices.SortFunc(p.Delete, func(a, b *corev1.Pod) int { return cmp.Compare(a.Name, b.Name) })
	if !equality.Semantic.DeepEqual(*status, s.Set.Status) {
		p.Status = status
	}
	return p
}

// clean plans the end of a node's pods that failed, may not stay or are too many, and answers those that stay, the
// oldest first.
func (p *Plan) clean(pods []*corev1.Pod, stay bool) []*corev1.Pod {
	var live []*corev1.Pod
	for _, pod := range pods {
		switch {
		case pod.DeletionTimestamp != nil:
			live = append(live, pod) // its successor waits until it is gone
		case pod.Status.Phase == corev1.PodFailed:
			p.Failed = append(p.Failed, pod)
			p.Delete = append(p.Delete, pod)
		case pod.Status.Phase == corev1.PodSucceeded || !stay:
			p.Delete = append(p.Delete, pod)
		default:
			live = append(live, pod)
		}
	}
	slices.SortStableFunc(live, func(a, b *corev1.Pod) int { return a.CreationTimestamp.Compare(b.CreationTimestamp.Time) })
	for _, extra := range live[min(1, len(live)):] {
		if extra.DeletionTimestamp == nil {
			p.Delete = append(p.Delete, extra)
		}
	}
	return live[:min(1, len(live))]
}

// tally counts a pod and tells whether it is available.
func (p *Plan) tally(s Snapshot, status *appsv1.DaemonSetStatus, pod *corev1.Pod) bool {
	since, ok := ready(pod)
	if !ok || pod.DeletionTimestamp != nil {
		return false
	}
	status.NumberReady++
	left := since.Add(time.Duration(s.Set.Spec.MinReadySeconds) * time.Second).Sub(s.Now)
	if s.Set.Spec.MinReadySeconds > 0 && left > 0 {
		if p.Again == 0 || left < p.Again {
			p.Again = left
		}
		return false
	}
	status.NumberAvailable++
	return true
}

// roll ends pods of old templates, as many at once as may be unavailable; those that are not available anyway first.
func (p *Plan) roll(s Snapshot, old []*corev1.Pod, unavailable, desired int) {
	if s.Set.Spec.UpdateStrategy.Type != appsv1.RollingUpdateDaemonSetStrategyType || len(old) == 0 {
		return
	}
	most := 1
	if u := s.Set.Spec.UpdateStrategy.RollingUpdate; u != nil {
		n, err := intstr.GetScaledValueFromIntOrPercent(intstr.ValueOrDefault(u.MaxUnavailable, intstr.FromInt32(1)), desired, true)
		if err == nil {
			most = max(n, 1)
		}
	}
	room := most - unavailable
	slices.SortStableFunc(old, func(a, b *corev1.Pod) int { return cmp.Compare(a.Name, b.Name) })
	for _, pod := range old {
		if _, ok := ready(pod); !ok {
			p.Delete = append(p.Delete, pod)
			continue
		}
		if room > 0 {
			room--
			p.Delete = append(p.Delete, pod)
		}
	}
}
