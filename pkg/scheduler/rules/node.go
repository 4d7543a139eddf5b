package rules

import (
	v1 "k8s.io/api/core/v1"
	corev1 "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/klog/v2"
)

func tolerates(p *Pod, taint *v1.Taint) bool {
	return corev1.TolerationsTolerateTaint(klog.Logger{}, p.Spec.Tolerations, taint, false)
}

// nodeUnschedulable refuses cordoned nodes.
var nodeUnschedulable = filter{name: "NodeUnschedulable", helps: NodeAdded | NodeChanged | PodChanged, check: func(c *cycle, n *Node) Verdict {
	if n.Spec.Unschedulable && !tolerates(c.Pod, &v1.Taint{Key: v1.TaintNodeUnschedulable, Effect: v1.TaintEffectNoSchedule}) {
		return Verdict{Reasons: []string{"node(s) were unschedulable"}, Final: true}
	}
	return Verdict{}
}}

// nodeName holds a pod that asks for a node by name to it.
var nodeName = filter{name: "NodeName", helps: NodeAdded, check: func(c *cycle, n *Node) Verdict {
	if want := c.Pod.Spec.NodeName; want != "" && want != n.Name {
		return Verdict{Reasons: []string{"node(s) didn't match the requested node name"}, Final: true}
	}
	return Verdict{}
}}

// taintFilter refuses nodes with a taint the pod does not tolerate.
var taintFilter = filter{name: "TaintToleration", helps: NodeAdded | NodeChanged | PodChanged, check: func(c *cycle, n *Node) Verdict {
	if hardTaint(c.Pod, n) != nil {
		return Verdict{Reasons: []string{"node(s) had untolerated taint(s)"}, Final: true}
	}
	return Verdict{}
}}

func hardTaint(p *Pod, n *Node) *v1.Taint {
	for i := range n.Spec.Taints {
		t := &n.Spec.Taints[i]
		if t.Effect != v1.TaintEffectPreferNoSchedule && !tolerates(p, t) {
			return t
		}
	}
	return nil
}

// taintScore prefers nodes with few PreferNoSchedule taints the pod does not tolerate.
var taintScore = score{name: "TaintToleration", weight: 3, rank: func(c *cycle, nodes []*Node, values []int64) {
	for i, n := range nodes {
		for j := range n.Spec.Taints {
			t := &n.Spec.Taints[j]
			if t.Effect == v1.TaintEffectPreferNoSchedule && !tolerates(c.Pod, t) {
				values[i]++
			}
		}
	}
	proportional(values, true)
}}

// affinityNeed is the pod's node selector and required node affinity, read once.
type affinityNeed struct {
	any   bool
	match nodeaffinity.RequiredNodeAffinity
}

// nodeAffinityFilter holds a pod to the nodes its selector and required affinity name.
var nodeAffinityFilter = filter{name: "NodeAffinity", helps: NodeAdded | NodeChanged,
	prepare: func(c *cycle) Verdict {
		a := c.Pod.Spec.Affinity
		c.required.any = len(c.Pod.Spec.NodeSelector) > 0 ||
			a != nil && a.NodeAffinity != nil && a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution != nil
		if c.required.any {
			c.required.match = nodeaffinity.GetRequiredNodeAffinity(c.Pod.Pod)
		}
		return Verdict{}
	},
	check: func(c *cycle, n *Node) Verdict {
		if !c.required.matches(n) {
			return Verdict{Reasons: []string{"node(s) didn't match Pod's node affinity/selector"}, Final: true}
		}
		return Verdict{}
	}}

func (a *affinityNeed) matches(n *Node) bool {
	if !a.any {
		return true
	}
	ok, err := a.match.Match(n.Node)
	return ok && err == nil
}

// nodeAffinityScore adds the weights of the preferred terms a node meets.
var nodeAffinityScore = score{name: "NodeAffinity", weight: 2, rank: func(c *cycle, nodes []*Node, values []int64) {
	a := c.Pod.Spec.Affinity
	if a == nil || a.NodeAffinity == nil || len(a.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution) == 0 {
		return
	}
	preferred, err := nodeaffinity.NewPreferredSchedulingTerms(a.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution)
	if err != nil {
		return
	}
	for i, n := range nodes {
		values[i] = preferred.Score(n.Node)
	}
	proportional(values, false)
}}

// nodePorts refuses nodes on which a host port of the pod is taken.
var nodePorts = filter{name: "NodePorts", helps: NodeAdded | PodGone, check: func(c *cycle, n *Node) Verdict {
	for _, want := range c.Pod.Ports {
		for held := range n.Ports {
			if want.conflicts(held) {
				return Verdict{Reasons: []string{"node(s) didn't have free ports for the requested pod ports"}}
			}
		}
	}
	return Verdict{}
}}
