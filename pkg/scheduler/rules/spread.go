package rules

import (
	"math"
	"slices"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
)

// constraint is a topology spread constraint, read once, with the pods counted by value of its key.
type constraint struct {
	key          string
	skew         int64
	minDomains   int64
	pods         labels.Selector
	honourTaints bool
	anyNode      bool // nodes outside the pod's node affinity count too
	self         int64
	counts       map[string]int64
	least        int64
}

// spread is what the hard constraints counted.
type spread struct{ hard []constraint }

// spreadFilter refuses nodes that would make the pods of a set more uneven than a constraint allows.
var spreadFilter = filter{name: "PodTopologySpread", helps: NodeAdded | NodeChanged | PodGone | PodPlaced | PodChanged,
	prepare: func(c *cycle) Verdict {
		c.spread.hard = constraints(c.Pod, v1.DoNotSchedule)
		hard := c.spread.hard
		if len(hard) == 0 {
			return Verdict{}
		}
		c.countPods(hard, c.Table.nodes, true)
		for i := range hard {
			k := &hard[i]
			k.least = math.MaxInt64
			for _, n := range k.counts {
				k.least = min(k.least, n)
			}
			if int64(len(k.counts)) < k.minDomains {
				k.least = 0
			}
		}
		return Verdict{}
	},
	check: func(c *cycle, n *Node) Verdict {
		for i := range c.spread.hard {
			k := &c.spread.hard[i]
			value, ok := n.Labels[k.key]
			if !ok {
				return Verdict{Reasons: []string{"node(s) didn't match pod topology spread constraints (missing required label)"}, Final: true}
			}
			if k.counts[value]+k.self-k.least > k.skew {
				return Verdict{Reasons: []string{"node(s) didn't match pod topology spread constraints"}}
			}
		}
		return Verdict{}
	}}

func constraints(p *Pod, when v1.UnsatisfiableConstraintAction) []constraint {
	var out []constraint
	for i := range p.Spec.TopologySpreadConstraints {
		t := &p.Spec.TopologySpreadConstraints[i]
		if t.WhenUnsatisfiable != when {
			continue
		}
		k := constraint{key: t.TopologyKey, skew: int64(t.MaxSkew), minDomains: 1, pods: selector(t.LabelSelector)}
		if t.MinDomains != nil {
			k.minDomains = int64(*t.MinDomains)
		}
		for _, key := range t.MatchLabelKeys {
			if value, ok := p.labels[key]; ok {
				if r, err := labels.NewRequirement(key, selection.In, []string{value}); err == nil {
					k.pods = k.pods.Add(*r)
				}
			}
		}
		k.honourTaints = t.NodeTaintsPolicy != nil && *t.NodeTaintsPolicy == v1.NodeInclusionPolicyHonor
		k.anyNode = t.NodeAffinityPolicy != nil && *t.NodeAffinityPolicy == v1.NodeInclusionPolicyIgnore
		if k.pods.Matches(p.labels) {
			k.self = 1
		}
		out = append(out, k)
	}
	return out
}

// countPods fills the counts of each constraint from the nodes it looks at; with allKeys, only from nodes that have every key.
func (c *cycle) countPods(ks []constraint, nodes []*Node, allKeys bool) {
	for i := range ks {
		ks[i].counts = map[string]int64{}
	}
	for _, n := range nodes {
		if allKeys && slices.ContainsFunc(ks, func(k constraint) bool { _, ok := n.Labels[k.key]; return !ok }) {
			continue
		}
		for i := range ks {
			k := &ks[i]
			value, ok := n.Labels[k.key]
			if !ok || !k.anyNode && !c.required.matches(n) || k.honourTaints && hardTaint(c.Pod, n) != nil {
				continue
			}
			count := int64(0)
			for _, other := range n.Pods {
				if other.Namespace == c.Pod.Namespace && other.DeletionTimestamp == nil && k.pods.Matches(other.labels) {
					count++
				}
			}
			k.counts[value] += count
		}
	}
}

// spreadScore prefers places with few pods of the set: by the pod's soft constraints, or, where it has no constraints at all,
// by host and by zone among the pods of its Service or its controller.
var spreadScore = score{name: "PodTopologySpread", weight: 2, rank: func(c *cycle, nodes []*Node, values []int64) {
	soft := constraints(c.Pod, v1.ScheduleAnyway)
	defaults := len(c.Pod.Spec.TopologySpreadConstraints) == 0
	if defaults && c.Siblings != nil {
		soft = []constraint{
			{key: v1.LabelHostname, skew: 3, pods: c.Siblings},
			{key: v1.LabelTopologyZone, skew: 5, pods: c.Siblings},
		}
	}
	if len(soft) == 0 {
		return
	}
	c.countPods(soft, c.Table.nodes, !defaults)
	raw := make([]float64, len(nodes))
	ignored := make([]bool, len(nodes))
	most, least := 0.0, math.MaxFloat64
	for i, n := range nodes {
		for j := range soft {
			k := &soft[j]
			value, ok := n.Labels[k.key]
			if !ok {
				ignored[i] = ignored[i] || !defaults
				continue
			}
			raw[i] += float64(k.counts[value])*math.Log(float64(domains(k, nodes)+2)) + float64(k.skew-1)
		}
		if !ignored[i] {
			raw[i] = math.Round(raw[i])
			most, least = max(most, raw[i]), min(least, raw[i])
		}
	}
	for i := range nodes {
		switch {
		case ignored[i]:
			values[i] = 0
		case most == 0:
			values[i] = 100
		default:
			values[i] = int64(100 * (most + least - raw[i]) / most)
		}
	}
}}

// domains answers how many places a constraint tells apart among the feasible nodes.
func domains(k *constraint, nodes []*Node) int {
	if k.key == v1.LabelHostname {
		return len(nodes)
	}
	return len(k.counts)
}
