package topology

import (
	"fmt"
	"math/bits"
	"slices"
	"strings"
)

// Mask is a set of NUMA nodes, one bit each; 0 stands for any node.
type Mask uint64

// MaskOf holds the given nodes.
func MaskOf(nodes ...int) Mask {
	var m Mask
	for _, n := range nodes {
		m |= 1 << n
	}
	return m
}

// Count is how many nodes are in the set.
func (m Mask) Count() int { return bits.OnesCount64(uint64(m)) }

// Has tells whether a node is in the set.
func (m Mask) Has(node int) bool { return m&(1<<node) != 0 }

// Within tells whether every node of m is in o too.
func (m Mask) Within(o Mask) bool { return m&^o == 0 }

// Nodes are the set's, in order.
func (m Mask) Nodes() []int {
	var out []int
	for n := range 64 {
		if m.Has(n) {
			out = append(out, n)
		}
	}
	return out
}

func (m Mask) String() string {
	if m == 0 {
		return "any"
	}
	return strings.Trim(strings.ReplaceAll(fmt.Sprint(m.Nodes()), " ", ","), "[]")
}

// narrower orders sets: fewer nodes first, then lower nodes.
func (m Mask) narrower(o Mask) bool {
	if a, b := m.Count(), o.Count(); a != b {
		return a < b
	}
	return m < o
}

// Hint is one way to meet a wish: from which nodes, and whether the one who offers it prefers it.
type Hint struct {
	Nodes     Mask
	Preferred bool
}

func (h Hint) String() string {
	if h.Preferred {
		return h.Nodes.String() + " preferred"
	}
	return h.Nodes.String()
}

// Hints are, by resource, the ways to meet a wish. nil hints say that any nodes do, an empty list that none do.
type Hints map[string][]Hint

// Machine is what merging needs to know of the machine: its NUMA nodes, and how far each is from each.
type Machine struct {
	Nodes    []int
	Distance map[int][]int
}

// Options are those of the topology manager.
type Options struct {
	// Closest prefers nodes near each other among sets of one size (prefer-closest-numa-nodes).
	Closest bool
	// MaxNodes is how many nodes the manager bothers with (max-allowable-numa-nodes).
	MaxNodes int
}

// Policies by upstream's names.
const (
	None       = "none"
	BestEffort = "best-effort"
	Restricted = "restricted"
	SingleNode = "single-numa-node"
)

// decide merges what all offer into the nodes to take from, and tells whether the policy lets the pod in.
func decide(policy string, m Machine, o Options, offers []Hints) (Hint, bool) {
	if policy == None {
		return Hint{}, true
	}
	lists := flatten(offers)
	if policy == SingleNode {
		for i, l := range lists {
			lists[i] = slices.DeleteFunc(slices.Clone(l), func(h Hint) bool { return !h.Preferred || h.Nodes != 0 && h.Nodes.Count() != 1 })
		}
	}
	best := merge(m, o, policy, lists)
	switch policy {
	case SingleNode:
		if best.Nodes == MaskOf(m.Nodes...) {
			best.Nodes = 0
		}
		return best, best.Preferred
	case Restricted:
		return best, best.Preferred
	}
	return best, true
}

// flatten is one list per resource; who has no wish takes any nodes, who finds no way gets any but prefers none.
func flatten(offers []Hints) [][]Hint {
	var out [][]Hint
	for _, hints := range offers {
		if len(hints) == 0 {
			out = append(out, []Hint{{Preferred: true}})
			continue
		}
		names := make([]string, 0, len(hints))
		for name := range hints {
			names = append(names, name)
		}
		slices.Sort(names)
		for _, name := range names {
			switch l := hints[name]; {
			case l == nil:
				out = append(out, []Hint{{Preferred: true}})
			case len(l) == 0:
				out = append(out, []Hint{{}})
			default:
				out = append(out, l)
			}
		}
	}
	return out
}

// merge tries every combination of one hint per resource: its nodes are those all agree on.
func merge(m Machine, o Options, policy string, lists [][]Hint) Hint {
	all := MaskOf(m.Nodes...)
	best := Hint{}
	found := false
	// The widest of the resources' narrowest hints: as many nodes as there is no way around.
	least := 0
	for _, l := range lists {
		own := 0
		for _, h := range l {
			if n := h.Nodes.Count(); h.Nodes != 0 && (own == 0 || n < own) {
				own = n
			}
		}
		least = max(least, own)
	}
	var walk func(i int, chosen []Hint)
	walk = func(i int, chosen []Hint) {
		if i == len(lists) {
			h := together(all, chosen)
			if h.Nodes != 0 && (!found || better(m, o, policy, least, h, best)) {
				best, found = h, true
			}
			return
		}
		for _, h := range lists[i] {
			walk(i+1, append(chosen, h))
		}
	}
	walk(0, nil)
	if !found {
		return Hint{Nodes: all}
	}
	return best
}

// together is what one combination comes to: preferred when all prefer it and name the same nodes.
func together(all Mask, chosen []Hint) Hint {
	out := Hint{Nodes: all, Preferred: true}
	var named Mask
	for _, h := range chosen {
		out.Preferred = out.Preferred && h.Preferred
		if h.Nodes == 0 {
			continue
		}
		if named != 0 && h.Nodes != named {
			out.Preferred = false
		}
		named = h.Nodes
		out.Nodes &= h.Nodes
	}
	return out
}

// better tells whether candidate c is to be taken rather than the current best.
func better(m Machine, o Options, policy string, least int, c, best Hint) bool {
	if c.Preferred != best.Preferred {
		return c.Preferred
	}
	if c.Preferred || policy == SingleNode {
		return closer(m, o, c.Nodes, best.Nodes)
	}
	// Nobody is content either way: as many nodes as there is no way around, then as near that as can be.
	a, b := c.Nodes.Count(), best.Nodes.Count()
	switch {
	case b > least:
		return closer(m, o, c.Nodes, best.Nodes)
	case b == least:
		return a == least && closer(m, o, c.Nodes, best.Nodes)
	default:
		return a > b && a <= least || a == b && closer(m, o, c.Nodes, best.Nodes)
	}
}

// closer compares sets: fewer nodes first, among as many those near each other, if asked for, else the lower ones.
func closer(m Machine, o Options, a, b Mask) bool {
	if o.Closest && a.Count() == b.Count() {
		if x, y := spread(m, a), spread(m, b); x != y {
			return x < y
		}
	}
	return a.narrower(b)
}

// spread is the average distance within a set.
func spread(m Machine, s Mask) float64 {
	sum, n := 0, 0
	for _, a := range s.Nodes() {
		for _, b := range s.Nodes() {
			if d := m.Distance[a]; b < len(d) {
				sum, n = sum+d[b], n+1
			}
		}
	}
	if n == 0 {
		return 0
	}
	return float64(sum) / float64(n)
}
