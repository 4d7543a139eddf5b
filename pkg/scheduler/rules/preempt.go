package rules

import (
	"cmp"
	"math"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
)

const (
	noHelp    = "Preemption is not helpful for scheduling"
	noVictims = "No preemption victims found for incoming pod"
)

// candidate is a node on which the pod fits once the victims are gone.
type candidate struct {
	node    *Node
	victims []*Pod
}

// preempt looks for pods of lower priority whose leaving would let the pod in. It sets the plan's Nominated and Victims, or
// answers in words why it does not.
func (c *cycle) preempt(plan *Plan) string {
	const words = "no new claims to deallocate, preemption: "
	if policy := c.Pod.Spec.PreemptionPolicy; policy != nil && *policy == v1.PreemptNever {
		return words + "not eligible due to preemptionPolicy=Never."
	}
	if name := c.Pod.Status.NominatedNodeName; name != "" && c.leaving(name) {
		return words + "not eligible due to a terminating pod on the nominated node."
	}
	refused := map[string]Verdict{}
	var candidates []candidate
	for _, n := range c.Table.nodes {
		if plan.Verdicts[n.Name].Final {
			refused[n.Name] = Verdict{Reasons: []string{noHelp}}
			continue
		}
		victims, v := c.victims(n)
		if !v.Passes() {
			refused[n.Name] = v
			continue
		}
		candidates = append(candidates, candidate{n, victims})
	}
	if len(candidates) == 0 {
		return words + summary(len(c.Table.nodes), refused)
	}
	best := slices.MinFunc(candidates, cheaper)
	plan.Nominated, plan.Victims = best.node.Name, best.victims
	return ""
}

// leaving says whether victims of an earlier round are still going: evicting more now would evict too many.
func (c *cycle) leaving(node string) bool {
	n := c.Table.Node(node)
	if n == nil {
		return false
	}
	for _, p := range n.Pods {
		if p.DeletionTimestamp != nil && p.Priority < c.Pod.Priority {
			return true
		}
	}
	return false
}

// victims answers the fewest, least important pods to evict from n. It takes pods out of the table and puts them back.
func (c *cycle) victims(n *Node) ([]*Pod, Verdict) {
	var lower []*Pod
	for _, p := range n.Pods {
		if p.Priority < c.Pod.Priority {
			lower = append(lower, p)
		}
	}
	if len(lower) == 0 {
		return nil, Verdict{Reasons: []string{noVictims}}
	}
	slices.SortFunc(lower, moreImportant)
	for _, p := range lower {
		c.Table.count(n, p, -1)
	}
	fits := func() Verdict {
		again := &cycle{Snapshot: c.Snapshot}
		if v := again.prepare(); !v.Passes() {
			return v
		}
		return again.check(n)
	}
	if v := fits(); !v.Passes() {
		for _, p := range lower {
			c.Table.count(n, p, 1)
		}
		return nil, v
	}
	var victims []*Pod
	for _, p := range lower {
		c.Table.count(n, p, 1)
		if fits().Passes() {
			continue
		}
		c.Table.count(n, p, -1)
		victims = append(victims, p)
	}
	for _, p := range victims {
		c.Table.count(n, p, 1)
	}
	return victims, Verdict{}
}

// moreImportant orders by priority, then by how long a pod runs.
func moreImportant(a, b *Pod) int {
	if a.Priority != b.Priority {
		return cmp.Compare(b.Priority, a.Priority)
	}
	if x, y := a.Status.StartTime, b.Status.StartTime; x != nil && y != nil && !x.Equal(y) {
		return x.Compare(y.Time)
	}
	return strings.Compare(a.Key, b.Key)
}

// cheaper orders candidates: lowest most important victim, lowest sum of priorities, fewest victims, youngest, by name.
func cheaper(a, b candidate) int {
	highest := func(c candidate) int64 {
		if len(c.victims) == 0 {
			return math.MinInt64
		}
		return int64(c.victims[0].Priority)
	}
	sum := func(c candidate) (s int64) {
		for _, v := range c.victims {
			// Shifted, so that two victims of negative priority cost more than one.
			s += int64(v.Priority) + math.MaxInt32 + 1
		}
		return s
	}
	return cmp.Or(
		cmp.Compare(highest(a), highest(b)),
		cmp.Compare(sum(a), sum(b)),
		cmp.Compare(len(a.victims), len(b.victims)),
		cmp.Compare(started(b), started(a)),
		strings.Compare(a.node.Name, b.node.Name),
	)
}

// started answers when the longest running of the most important victims started, in seconds.
func started(c candidate) int64 {
	if len(c.victims) == 0 || c.victims[0].Status.StartTime == nil {
		return math.MaxInt64
	}
	return c.victims[0].Status.StartTime.Unix()
}
