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
	Failed []*corev1.Pod // to be deleted too, but not at once each time: they failed
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
	for _, d := range p.Failed {
		fmt.Fprintf(&b, "delete %s, which failed\n", d.Name)
	}
	if s := p.Status; s != nil {
		fmt.Fprintf(&b, "status desired=%d current=%d ready=%d updated=%d available=%d misscheduled=%d\n",
			s.DesiredNumberScheduled, s.CurrentNumberScheduled, s.NumberReady, s.UpdatedNumberScheduled, s.NumberAvailable, s.NumberMisscheduled)
	}
	if p.Again > 0 {
		fmt.Fprintf(&b, "again in %s\n", p.Again)
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

// turn is a decision being made.
type turn struct {
	Snapshot
	plan   Plan
	status *appsv1.DaemonSetStatus
	on     []place // the nodes that are to have a pod, by name
}

// place is one node's pods, the ones that are too many left out.
type place struct {
	node     string
	now, old *corev1.Pod // of the current template and of another, nil if there is none
}

// decide has one pod on every node that the set is for, and brings old ones to the current template step by step.
func decide(s Snapshot) Plan {
	t := &turn{Snapshot: s, status: s.Set.Status.DeepCopy()}
	t.status.CurrentNumberScheduled, t.status.DesiredNumberScheduled, t.status.NumberMisscheduled = 0, 0, 0
	t.status.NumberReady, t.status.NumberAvailable, t.status.UpdatedNumberScheduled = 0, 0, 0
	t.places()
	for _, x := range t.on {
		if x.now == nil && x.old == nil {
			t.plan.Create = append(t.plan.Create, x.node)
		}
	}
	t.roll()
	t.count()
	p := t.plan
	if !s.Settled || s.Set.DeletionTimestamp != nil {
		p.Create, p.Delete, p.Failed = nil, nil, nil
	}
	slices.Sort(p.Create)
	slices.SortFunc(p.Delete, func(a, b *corev1.Pod) int { return cmp.Compare(a.Name, b.Name) })
	return p
}

// places sorts the pods by node, and plans the end of those that nobody needs.
func (t *turn) places() {
	on := map[string][]*corev1.Pod{}
	for _, pod := range t.Pods {
		on[node(pod)] = append(on[node(pod)], pod)
	}
	nodes := map[string]bool{"": true} // a pod that is for no node is not ours to judge
	for _, n := range t.Nodes {
		nodes[n.Name] = true
		run, stay := fits(t.Set, n)
		live := t.clean(on[n.Name], stay)
		switch {
		case run:
			t.on = append(t.on, t.place(n.Name, live))
		case len(live) > 0:
			t.status.NumberMisscheduled++
		}
	}
	slices.SortFunc(t.on, func(a, b place) int { return cmp.Compare(a.node, b.node) })
	for name, pods := range on {
		for _, pod := range pods {
			if !nodes[name] && pod.DeletionTimestamp == nil {
				t.plan.Delete = append(t.plan.Delete, pod)
			}
		}
	}
}

// clean plans the end of a node's pods that failed or may not stay, and answers the others, the oldest first.
func (t *turn) clean(pods []*corev1.Pod, stay bool) []*corev1.Pod {
	var live []*corev1.Pod
	for _, pod := range pods {
		switch {
		case pod.DeletionTimestamp != nil:
			live = append(live, pod) // its successor waits until it is gone
		case pod.Status.Phase == corev1.PodFailed:
			t.plan.Failed = append(t.plan.Failed, pod)
			live = append(live, pod)
		case pod.Status.Phase == corev1.PodSucceeded:
			t.plan.Delete = append(t.plan.Delete, pod)
			live = append(live, pod)
		case !stay:
			t.plan.Delete = append(t.plan.Delete, pod)
		default:
			live = append(live, pod)
		}
	}
	slices.SortStableFunc(live, func(a, b *corev1.Pod) int { return a.CreationTimestamp.Compare(b.CreationTimestamp.Time) })
	return live
}

// place answers a node's pods: one, or while an update surges one of each template. The others are too many.
func (t *turn) place(name string, live []*corev1.Pod) place {
	x := place{node: name}
	surges := t.amount(true) > 0
	take := func(pod *corev1.Pod) bool {
		current := pod.Labels[appsv1.ControllerRevisionHashLabelKey] == t.Hash
		switch {
		case current && x.now == nil && (surges || x.old == nil):
			x.now = pod
		case !current && x.old == nil && (surges || x.now == nil):
			x.old = pod
		default:
			return false
		}
		return true
	}
	for _, pod := range live {
		if pod.DeletionTimestamp == nil && !take(pod) {
			t.end(pod)
		}
	}
	for _, pod := range live { // who leaves keeps the place only while nobody else has it
		if pod.DeletionTimestamp != nil {
			take(pod)
		}
	}
	return x
}

// available tells whether a pod has been ready for long enough.
func (t *turn) available(pod *corev1.Pod) bool {
	if pod == nil || pod.DeletionTimestamp != nil {
		return false
	}
	since, ok := ready(pod)
	if !ok {
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

// count writes what is there into the status. A node that has two pods for a while tells of the older.
func (t *turn) count() {
	for _, x := range t.on {
		t.status.DesiredNumberScheduled++
		pod := x.old
		if pod == nil || x.now != nil && x.now.CreationTimestamp.Before(&pod.CreationTimestamp) {
			pod = x.now
		}
		if pod == nil {
			continue
		}
		t.status.CurrentNumberScheduled++
		if _, ok := ready(pod); ok && pod.DeletionTimestamp == nil {
			t.status.NumberReady++
		}
		if t.available(pod) {
			t.status.NumberAvailable++
		}
		if pod == x.now {
			t.status.UpdatedNumberScheduled++
		}
	}
	t.status.NumberUnavailable = t.status.DesiredNumberScheduled - t.status.NumberAvailable
	t.status.ObservedGeneration = t.Set.Generation
	if !equality.Semantic.DeepEqual(*t.status, t.Set.Status) {
		t.plan.Status = t.status
	}
}
