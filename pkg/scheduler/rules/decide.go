// Package rules decides where a pod goes: data in, a Plan out. It knows no clock, client or goroutine.
//
// A Table is the cluster. Decide takes one pod through the filters, each one named plugin in a file of its own, then scores
// the nodes that are left, and picks the best; when none is left it says why in words, and whether evicting pods of lower
// priority would help. Nothing here locks: the caller owns the Table and serializes all calls.
package rules

import (
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/labels"
)

// Events are what may make a refused pod fit.
type Events uint

// The events a plugin can wait for.
const (
	NodeAdded Events = 1 << iota
	NodeChanged
	PodGone
	PodPlaced
	VolumeChanged
	PodChanged
	AllEvents Events = 1<<iota - 1
)

// Verdict is a filter's answer for one node; with no reasons the node passes.
type Verdict struct {
	Plugin  string
	Reasons []string
	Final   bool // evicting pods cannot change it
}

// Passes says that the filter has nothing against the node.
func (v Verdict) Passes() bool { return len(v.Reasons) == 0 }

// filter is a plugin that refuses nodes.
type filter struct {
	name  string
	helps Events
	// prepare looks at the pod and the whole table once; a verdict of its own refuses all nodes.
	prepare func(c *cycle) Verdict
	check   func(c *cycle, n *Node) Verdict
}

// score is a plugin that ranks nodes. values holds one row per feasible node, and leaves numbers of 0 to 100.
type score struct {
	name   string
	weight int64
	rank   func(c *cycle, nodes []*Node, values []int64)
}

// filters are all filter plugins in the order in which they are asked.
var filters = []filter{
	nodeUnschedulable, nodeName, taintFilter, nodeAffinityFilter, nodePorts, resourcesFit, volumeBinding, spreadFilter, interPodFilter,
}

// scores are all scoring plugins with their weights.
var scores = []score{
	taintScore, nodeAffinityScore, spreadScore, interPodScore, leastAllocated, balancedAllocation, imageLocality,
}

// Helps answers which events may make a pod fit that the named plugin refused.
func Helps(plugin string) Events {
	for i := range filters {
		if filters[i].name == plugin {
			return filters[i].helps
		}
	}
	return AllEvents
}

// Snapshot is all a decision depends on. Pod's namespace must have its labels in Namespaces where terms select namespaces.
type Snapshot struct {
	Table      *Table
	Pod        *Pod
	Claims     []Claim
	Siblings   labels.Selector // the pods of the same Service or ReplicaSet, spread softly; nil for none
	Namespaces map[string]labels.Set
	Seed       uint64
	// Start is the row the search begins at, and Enough the number of feasible nodes after which it ends (0: all).
	Start, Enough int
	// Off names the plugins that do not take part; Weights replaces weights of scores.
	Off     map[string]bool
	Weights map[string]int64
}

// Plan is a decision: a node, or why there is none.
type Plan struct {
	Pod       string
	Node      string
	Searched  int
	Feasible  int
	Score     int64
	Verdicts  map[string]Verdict // of the nodes that were refused
	Message   string
	Rejectors []string // plugins that refused a node, sorted
	Nominated string
	Victims   []*Pod
}

// String prints the plan for logs and goldens.
func (p Plan) String() string {
	if p.Node != "" {
		return fmt.Sprintf("bind %s to %s (%d of %d nodes fit)", p.Pod, p.Node, p.Feasible, p.Searched)
	}
	out := fmt.Sprintf("wait %s: %s", p.Pod, p.Message)
	if p.Nominated != "" {
		names := make([]string, len(p.Victims))
		for i, v := range p.Victims {
			names[i] = v.Key
		}
		out += fmt.Sprintf(" evict %s from %s", strings.Join(names, " "), p.Nominated)
	}
	return out
}

// cycle is the state of one decision; each plugin keeps what it prepared in a field of its own.
type cycle struct {
	Snapshot
	required affinityNeed
	inter    interPod
	spread   spread
}

func (c *cycle) prepare() Verdict {
	for i := range filters {
		f := &filters[i]
		if f.prepare == nil || c.Off[f.name] {
			continue
		}
		if v := f.prepare(c); !v.Passes() {
			v.Plugin = f.name
			return v
		}
	}
	return Verdict{}
}

func (c *cycle) check(n *Node) Verdict {
	for i := range filters {
		f := &filters[i]
		if f.check == nil || c.Off[f.name] {
			continue
		}
		if v := f.check(c, n); !v.Passes() {
			v.Plugin = f.name
			return v
		}
	}
	return Verdict{}
}

// Decide takes the pod through the pipeline. The table is as before when it returns.
func Decide(s Snapshot) Plan {
	c := &cycle{Snapshot: s}
	plan := Plan{Pod: s.Pod.Key, Verdicts: map[string]Verdict{}}
	nodes := s.Table.nodes
	if len(nodes) == 0 {
		plan.Message = "no nodes available to schedule pods"
		return plan
	}
	if v := c.prepare(); !v.Passes() {
		plan.Rejectors = []string{v.Plugin}
		for _, n := range nodes {
			plan.Verdicts[n.Name] = v
		}
		plan.Message = fmt.Sprintf("0/%d nodes are available: %s. %s", len(nodes), strings.Join(v.Reasons, ", "), c.preempt(&plan))
		return plan
	}
	var fit []*Node
	for i := range nodes {
		n := nodes[(s.Start+i)%len(nodes)]
		plan.Searched++
		if v := c.check(n); !v.Passes() {
			plan.Verdicts[n.Name] = v
			continue
		}
		if fit = append(fit, n); s.Enough > 0 && len(fit) >= s.Enough {
			break
		}
	}
	if plan.Feasible = len(fit); len(fit) > 0 {
		plan.Node, plan.Score = c.pick(fit)
		return plan
	}
	rejectors := map[string]bool{}
	for _, v := range plan.Verdicts {
		rejectors[v.Plugin] = true
	}
	plan.Rejectors = slices.Sorted(maps.Keys(rejectors))
	words := summary(len(nodes), plan.Verdicts)
	if after := c.preempt(&plan); plan.Nominated == "" {
		words += " " + after
	}
	plan.Message = words
	return plan
}

// summary counts reasons: "0/3 nodes are available: 2 Insufficient cpu, 1 Too many pods."
func summary(nodes int, verdicts map[string]Verdict) string {
	counts := map[string]int{}
	for _, v := range verdicts {
		for _, r := range v.Reasons {
			counts[r]++
		}
	}
	lines := make([]string, 0, len(counts))
	for r, n := range counts {
		lines = append(lines, fmt.Sprintf("%d %s", n, r))
	}
	slices.Sort(lines)
	return fmt.Sprintf("0/%d nodes are available: %s.", nodes, strings.Join(lines, ", "))
}

// pick scores the feasible nodes. Ties are broken by a hash of seed, pod and node: spread, yet the same every time.
func (c *cycle) pick(fit []*Node) (string, int64) {
	if len(fit) == 1 {
		return fit[0].Name, 0
	}
	total := make([]int64, len(fit))
	values := make([]int64, len(fit))
	for i := range scores {
		s := &scores[i]
		weight := s.weight
		if w, ok := c.Weights[s.name]; ok {
			weight = w
		}
		if weight == 0 || c.Off[s.name] {
			continue
		}
		clear(values)
		s.rank(c, fit, values)
		for j, v := range values {
			total[j] += weight * v
		}
	}
	best, bestHash := -1, uint64(0)
	for i, n := range fit {
		if best >= 0 && total[i] < total[best] {
			continue
		}
		h := c.hash(n.Name)
		if best < 0 || total[i] > total[best] || h > bestHash {
			best, bestHash = i, h
		}
	}
	return fit[best].Name, total[best]
}

func (c *cycle) hash(node string) uint64 {
	h := fnv.New64a()
	fmt.Fprintf(h, "%d/%s/%s/%s", c.Seed, c.Pod.UID, c.Pod.Key, node)
	return h.Sum64()
}

// proportional turns counts into 0 to 100 by the largest, reversed when few is good.
func proportional(values []int64, reverse bool) {
	most := slices.Max(values)
	for i, v := range values {
		switch {
		case most == 0 && reverse:
			values[i] = 100
		case most == 0:
		case reverse:
			values[i] = 100 - 100*v/most
		default:
			values[i] = 100 * v / most
		}
	}
}
