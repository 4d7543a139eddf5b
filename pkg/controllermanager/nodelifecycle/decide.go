package nodelifecycle

import (
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Sight is what is known of one node: its state as last seen, and since when by our own clock, so that clocks may differ.
type Sight struct {
	Node    *corev1.Node
	Renewed time.Time // when its lease or status last changed, as we saw it
	Created time.Time
	Now     time.Time
	Grace   time.Duration // how long silence is taken for health
	Turn    bool          // its zone may give up one more node now
	Dark    bool          // no node is well anywhere: none is given up
}

// Plan is what is to be written on a node.
type Plan struct {
	Unknown bool                   // its conditions are to be set to unknown
	Taints  []corev1.Taint         // as they are to be; nil if they stay
	Ready   corev1.ConditionStatus // "" of a node that may still be starting
	Held    bool                   // its pods would have to leave, but it is not its turn
	Again   time.Duration
}

// String shows the plan as logs and tests do.
func (p Plan) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "ready %s\n", p.Ready)
	if p.Unknown {
		b.WriteString("conditions to unknown\n")
	}
	if p.Taints != nil {
		b.WriteString("taints\n")
		for _, t := range p.Taints {
			fmt.Fprintf(&b, "  %s:%s", t.Key, t.Effect)
			if t.TimeAdded != nil {
				fmt.Fprintf(&b, " since %s", t.TimeAdded.UTC().Format(time.TimeOnly))
			}
			b.WriteString("\n")
		}
	}
	if p.Held {
		b.WriteString("waits for its turn\n")
	}
	if p.Again > 0 {
		fmt.Fprintf(&b, "again in %s\n", p.Again)
	}
	return b.String()
}

// statusOf answers a condition's status.
func statusOf(n *corev1.Node, t corev1.NodeConditionType) corev1.ConditionStatus {
	for _, c := range n.Status.Conditions {
		if c.Type == t {
			return c.Status
		}
	}
	return corev1.ConditionUnknown
}

// pressures are the conditions that keep new pods off a node, and the taints that say so.
var pressures = map[corev1.NodeConditionType]string{
	corev1.NodeMemoryPressure: corev1.TaintNodeMemoryPressure, corev1.NodeDiskPressure: corev1.TaintNodeDiskPressure,
	corev1.NodePIDPressure: corev1.TaintNodePIDPressure, corev1.NodeNetworkUnavailable: corev1.TaintNodeNetworkUnavailable,
}

// decide says whether a node is believed to be well, and which taints follow from its conditions.
func decide(s Sight) Plan {
	p := Plan{}
	if hasCondition(s.Node) {
		p.Ready = statusOf(s.Node, corev1.NodeReady)
	}
	silent := s.Now.Sub(s.Renewed)
	if silent > s.Grace {
		p.Unknown = p.Ready != corev1.ConditionUnknown
		p.Ready = corev1.ConditionUnknown
	} else {
		p.Again = s.Grace - silent + time.Second
	}
	want := map[string]map[corev1.TaintEffect]bool{}
	add := func(key string, effects ...corev1.TaintEffect) {
		if want[key] == nil {
			want[key] = map[corev1.TaintEffect]bool{}
		}
		for _, e := range effects {
			want[key][e] = true
		}
	}
	switch p.Ready {
	case corev1.ConditionFalse:
		add(corev1.TaintNodeNotReady, p.giveUp(s)...)
	case corev1.ConditionUnknown:
		add(corev1.TaintNodeUnreachable, p.giveUp(s)...)
	case "": // what admission said of it stands until it speaks
		for _, t := range s.Node.Spec.Taints {
			if t.Key == corev1.TaintNodeNotReady || t.Key == corev1.TaintNodeUnreachable {
				add(t.Key, t.Effect)
			}
		}
	}
	for t, key := range pressures {
		if statusOf(s.Node, t) == corev1.ConditionTrue {
			add(key, corev1.TaintEffectNoSchedule)
		}
	}
	if s.Node.Spec.Unschedulable {
		add(corev1.TaintNodeUnschedulable, corev1.TaintEffectNoSchedule)
	}
	p.Taints = taints(s.Node.Spec.Taints, want, s.Now)
	return p
}

// giveUp answers the effects of the taint of a node that is not well: new pods are kept off at once, those that are there
// leave when it is the node's turn. One that was given up stays so.
func (p *Plan) giveUp(s Sight) []corev1.TaintEffect {
	was := false
	for _, t := range s.Node.Spec.Taints {
		was = was || t.Effect == corev1.TaintEffectNoExecute && (t.Key == corev1.TaintNodeNotReady || t.Key == corev1.TaintNodeUnreachable)
	}
	if s.Dark || !was && !s.Turn {
		p.Held = !s.Dark
		return []corev1.TaintEffect{corev1.TaintEffectNoSchedule}
	}
	return []corev1.TaintEffect{corev1.TaintEffectNoSchedule, corev1.TaintEffectNoExecute}
}

func hasCondition(n *corev1.Node) bool {
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady {
			return true
		}
	}
	return false
}

// ours are the taints that follow from conditions; others belong to somebody else.
func ours(key string) bool {
	switch key {
	case corev1.TaintNodeNotReady, corev1.TaintNodeUnreachable, corev1.TaintNodeUnschedulable, corev1.TaintNodeMemoryPressure,
		corev1.TaintNodeDiskPressure, corev1.TaintNodePIDPressure, corev1.TaintNodeNetworkUnavailable:
		return true
	}
	return false
}

// taints answers the list as it is to be, nil if it is so already. A taint that stays keeps its time.
func taints(have []corev1.Taint, want map[string]map[corev1.TaintEffect]bool, now time.Time) []corev1.Taint {
	out, changed := []corev1.Taint{}, false
	seen := map[string]map[corev1.TaintEffect]bool{}
	for _, t := range have {
		if ours(t.Key) && !want[t.Key][t.Effect] {
			changed = true
			continue
		}
		if seen[t.Key] == nil {
			seen[t.Key] = map[corev1.TaintEffect]bool{}
		}
		seen[t.Key][t.Effect] = true
		out = append(out, t)
	}
	at := metav1.NewTime(now.Truncate(time.Second))
	for _, key := range order {
		for _, e := range []corev1.TaintEffect{corev1.TaintEffectNoSchedule, corev1.TaintEffectNoExecute} {
			if want[key][e] && !seen[key][e] {
				out, changed = append(out, corev1.Taint{Key: key, Effect: e, TimeAdded: &at}), true
			}
		}
	}
	if !changed {
		return nil
	}
	return out
}

// order is in which taints are added, so that a plan is the same every time.
var order = []string{
	corev1.TaintNodeNotReady, corev1.TaintNodeUnreachable, corev1.TaintNodeUnschedulable, corev1.TaintNodeMemoryPressure,
	corev1.TaintNodeDiskPressure, corev1.TaintNodePIDPressure, corev1.TaintNodeNetworkUnavailable,
}

// evictAt answers when a pod has to leave a node with these taints; ok is false if it may stay for good. A taint that does
// not tell when it came counts from when it was first seen.
func evictAt(p *corev1.Pod, nodeTaints []corev1.Taint, seen time.Time) (at time.Time, ok bool) {
	for _, t := range nodeTaints {
		if t.Effect != corev1.TaintEffectNoExecute {
			continue
		}
		since := seen
		if t.TimeAdded != nil {
			since = t.TimeAdded.Time
		}
		leave, bounded, stays := since, false, false
		for _, tol := range p.Spec.Tolerations {
			if !tolerates(tol, t) {
				continue
			}
			if tol.TolerationSeconds == nil {
				stays = true
				break
			}
			if until := since.Add(time.Duration(max(0, *tol.TolerationSeconds)) * time.Second); !bounded || until.Before(leave) {
				leave, bounded = until, true
			}
		}
		if stays {
			continue
		}
		if !ok || leave.Before(at) {
			at, ok = leave, true
		}
	}
	return at, ok
}

func tolerates(tol corev1.Toleration, t corev1.Taint) bool {
	if tol.Effect != "" && tol.Effect != t.Effect || tol.Key != "" && tol.Key != t.Key {
		return false
	}
	if tol.Key == "" {
		return tol.Operator == corev1.TolerationOpExists
	}
	return tol.Operator == corev1.TolerationOpExists || tol.Value == t.Value
}
