package cpus

import (
	"fmt"
	"math"
	"slices"
	"sort"

	"k8s.io/utils/cpuset"

	"github.com/sextant-k8s/sextant/pkg/kubelet/topology"
)

// Options are those of the static policy, by upstream's names.
type Options struct {
	// FullCores gives whole physical cores only (full-pcpus-only).
	FullCores bool
	// AcrossNodes spreads evenly over the NUMA nodes that are needed (distribute-cpus-across-numa).
	AcrossNodes bool
	// AcrossCores takes each CPU from another core as long as there are any (distribute-cpus-across-cores).
	AcrossCores bool
	// BySocket counts the NUMA nodes of one socket as lying together (align-by-socket).
	BySocket bool
	// Strict keeps the reserved CPUs out of the shared pool (strict-cpu-reservation).
	Strict bool
	// ByCache prefers CPUs of one last-level cache (prefer-align-cpus-by-uncorecache).
	ByCache bool
}

// Ask is what one decision is made from.
type Ask struct {
	CPUs []topology.CPU
	// Free may be given away; Reusable too, to this pod only: its init containers have run when it starts.
	Free, Reusable cpuset.CPUSet
	Need           int
	// Nodes are where to take from as long as there are any; 0 is anywhere.
	Nodes   topology.Mask
	Options Options
}

// decide chooses CPUs for one container: whole sockets and NUMA nodes first, then whole cores, then what is left of cores
// which are broken up already. The words of its errors are upstream's.
func decide(a Ask) (cpuset.CPUSet, error) {
	threads := perCore(a.CPUs)
	have := a.Free.Union(a.Reusable)
	if a.Options.FullCores {
		if a.Need%threads != 0 {
			return cpuset.New(), refuse("SMT Alignment Error: requested %d cpus not multiple cpus per core = %d", a.Need, threads)
		}
		whole := cpuset.New()
		for _, c := range groups(a.CPUs, have, func(c topology.CPU) int { return c.Core }) {
			if c.whole {
				whole = whole.Union(c.free)
			}
		}
		if whole.Size() < a.Need {
			return cpuset.New(), refuse("SMT Alignment Error: not enough free physical CPUs: available physical CPUs = %d, requested CPUs = %d, CPUs per core = %d", whole.Size(), a.Need, threads)
		}
	}
	out := cpuset.New()
	if a.Nodes != 0 {
		near := a.Nodes
		if a.Options.BySocket {
			near = sockets(a.CPUs, near)
		}
		aligned := have.Intersection(on(a.CPUs, near))
		n := min(aligned.Size(), a.Need)
		out = take(a.CPUs, aligned, n, a.Options)
	}
	if rest := have.Difference(out); rest.Size() < a.Need-out.Size() {
		return cpuset.New(), fmt.Errorf("not enough cpus available to satisfy request: requested=%d, available=%d", a.Need, have.Size())
	} else if out.Size() < a.Need {
		out = out.Union(take(a.CPUs, rest, a.Need-out.Size(), a.Options))
	}
	return out, nil
}

// refuse is an error with the reason of pods which cannot have whole cores.
func refuse(format string, a ...any) error {
	return &topology.Refusal{Reason: "SMTAlignmentError", Message: fmt.Sprintf(format, a...)}
}

// perCore is how many CPUs a core has.
func perCore(all []topology.CPU) int {
	cores := map[int]bool{}
	for _, c := range all {
		cores[c.Core] = true
	}
	return max(len(all)/max(len(cores), 1), 1)
}

// on are the CPUs of some NUMA nodes.
func on(all []topology.CPU, nodes topology.Mask) cpuset.CPUSet {
	var ids []int
	for _, c := range all {
		if nodes.Has(c.Node) {
			ids = append(ids, c.ID)
		}
	}
	return cpuset.New(ids...)
}

// sockets widens nodes to all those of their sockets.
func sockets(all []topology.CPU, nodes topology.Mask) topology.Mask {
	whose := map[int]bool{}
	for _, c := range all {
		if nodes.Has(c.Node) {
			whose[c.Socket] = true
		}
	}
	for _, c := range all {
		if whose[c.Socket] {
			nodes |= topology.MaskOf(c.Node)
		}
	}
	return nodes
}

// group is CPUs which belong together.
type group struct {
	id    int
	free  cpuset.CPUSet
	size  int
	whole bool
}

// groups sorts free CPUs into their sockets, nodes, caches or cores: those with fewest left first, to leave others whole.
func groups(all []topology.CPU, free cpuset.CPUSet, of func(topology.CPU) int) []group {
	ids, size := map[int][]int{}, map[int]int{}
	for _, c := range all {
		size[of(c)]++
		if free.Contains(c.ID) {
			ids[of(c)] = append(ids[of(c)], c.ID)
		}
	}
	var out []group
	for id, l := range ids {
		out = append(out, group{id, cpuset.New(l...), size[id], len(l) == size[id]})
	}
	sort.Slice(out, func(i, j int) bool {
		if a, b := out[i].free.Size(), out[j].free.Size(); a != b {
			return a < b
		}
		return out[i].id < out[j].id
	})
	return out
}

// take chooses n of the free CPUs; there are as many.
func take(all []topology.CPU, free cpuset.CPUSet, n int, o Options) cpuset.CPUSet {
	if o.AcrossNodes {
		if out, ok := spread(all, free, n, o); ok {
			return out
		}
	}
	return pack(all, free, n, o)
}

func pack(all []topology.CPU, free cpuset.CPUSet, n int, o Options) cpuset.CPUSet {
	out := cpuset.New()
	whole := func(of func(topology.CPU) int) {
		for _, g := range groups(all, free, of) {
			if g.whole && g.size <= n {
				out, free, n = out.Union(g.free), free.Difference(g.free), n-g.size
			}
		}
	}
	node := func(c topology.CPU) int { return c.Node }
	socket := func(c topology.CPU) int { return c.Socket }
	if count(all, socket) <= count(all, node) {
		whole(socket)
		whole(node)
	} else {
		whole(node)
		whole(socket)
	}
	if o.ByCache {
		cache := func(c topology.CPU) int { return c.Cache }
		whole(cache)
		// The rest from one cache which has enough left.
		for _, g := range groups(all, free, cache) {
			if n > 0 && g.free.Size() >= n {
				return out.Union(pack(all, g.free, n, Options{FullCores: o.FullCores, AcrossCores: o.AcrossCores}))
			}
		}
	}
	if o.AcrossCores {
		return out.Union(scatter(all, free, n))
	}
	// Cores of nodes, then sockets, with the least left come first, so that others stay whole.
	for _, s := range groups(all, free, socket) {
		for _, nd := range groups(all, s.free, node) {
			for _, c := range groups(all, nd.free, func(c topology.CPU) int { return c.Core }) {
				if c.whole && c.size <= n {
					out, free, n = out.Union(c.free), free.Difference(c.free), n-c.size
				}
			}
		}
	}
	for _, s := range groups(all, free, socket) {
		for _, nd := range groups(all, s.free, node) {
			for _, c := range groups(all, nd.free, func(c topology.CPU) int { return c.Core }) {
				for _, id := range c.free.List() {
					if n > 0 {
						out, n = out.Union(cpuset.New(id)), n-1
					}
				}
			}
		}
	}
	return out
}

func count(all []topology.CPU, of func(topology.CPU) int) int {
	seen := map[int]bool{}
	for _, c := range all {
		seen[of(c)] = true
	}
	return len(seen)
}

// scatter takes one CPU of each core, then the next of each.
func scatter(all []topology.CPU, free cpuset.CPUSet, n int) cpuset.CPUSet {
	var ids []int
	for len(ids) < n {
		cores := groups(all, free, func(c topology.CPU) int { return c.Core })
		slices.SortStableFunc(cores, func(a, b group) int { return a.id - b.id })
		for _, g := range cores {
			if len(ids) < n {
				id := g.free.List()[0]
				ids, free = append(ids, id), free.Difference(cpuset.New(id))
			}
		}
	}
	return cpuset.New(ids...)
}

// spread takes evenly from as few NUMA nodes as have enough, of those sets that which leaves the nodes most alike.
func spread(all []topology.CPU, free cpuset.CPUSet, n int, o Options) (cpuset.CPUSet, bool) {
	unit := 1
	if o.FullCores {
		unit = perCore(all)
	}
	nodes := groups(all, free, func(c topology.CPU) int { return c.Node })
	sort.Slice(nodes, func(i, j int) bool { return nodes[i].id < nodes[j].id })
	for k := 1; k <= len(nodes); k++ {
		best, least := []group(nil), math.Inf(1)
		each := n / k / unit * unit
		choose(nodes, k, func(set []group) {
			total := 0
			for _, g := range set {
				if total += g.free.Size(); g.free.Size() < each {
					return
				}
			}
			if total < n {
				return
			}
			if d := deviation(nodes, set, each); d < least {
				best, least = slices.Clone(set), d
			}
		})
		if best == nil {
			continue
		}
		out := cpuset.New()
		for _, g := range best {
			out = out.Union(pack(all, g.free, each, o))
		}
		// What does not divide goes to the nodes with the most left.
		for out.Size() < n {
			sort.SliceStable(best, func(i, j int) bool {
				return best[i].free.Difference(out).Size() > best[j].free.Difference(out).Size()
			})
			before := out.Size()
			for _, g := range best {
				if left := g.free.Difference(out); out.Size() < n && left.Size() > 0 {
					out = out.Union(pack(all, left, min(unit, n-out.Size(), left.Size()), o))
				}
			}
			if out.Size() == before {
				return out, false
			}
		}
		return out, true
	}
	return cpuset.New(), false
}

// choose calls back with every set of k groups.
func choose(from []group, k int, do func([]group)) {
	var walk func(at int, set []group)
	walk = func(at int, set []group) {
		if len(set) == k {
			do(set)
			return
		}
		for i := at; i < len(from); i++ {
			walk(i+1, append(set, from[i]))
		}
	}
	walk(0, nil)
}

// deviation is how unlike the nodes are in what they would have left.
func deviation(nodes, set []group, each int) float64 {
	var left []float64
	sum := 0.0
	for _, g := range nodes {
		n := float64(g.free.Size())
		if slices.ContainsFunc(set, func(s group) bool { return s.id == g.id }) {
			n -= float64(each)
		}
		left, sum = append(left, n), sum+n
	}
	mean, total := sum/float64(len(left)), 0.0
	for _, n := range left {
		total += (n - mean) * (n - mean)
	}
	return math.Sqrt(total / float64(len(left)))
}

// hints are the sets of NUMA nodes which could serve a need. Those of the fewest nodes that ever could are preferred.
func hints(a Ask, nodes []int) []topology.Hint {
	out := []topology.Hint{}
	least := len(nodes) + 1
	for set := 1; set < 1<<len(nodes); set++ {
		var m topology.Mask
		for i, n := range nodes {
			if set>>i&1 == 1 {
				m |= topology.MaskOf(n)
			}
		}
		mine := on(a.CPUs, m)
		if mine.Size() >= a.Need {
			least = min(least, m.Count())
		}
		if a.Reusable.IsSubsetOf(mine) && a.Free.Union(a.Reusable).Intersection(mine).Size() >= a.Need {
			out = append(out, topology.Hint{Nodes: m})
		}
	}
	for i := range out {
		m := out[i].Nodes
		out[i].Preferred = m.Count() == least
		if a.Options.BySocket && sockets(a.CPUs, topology.MaskOf(m.Nodes()[0])) == sockets(a.CPUs, m) {
			out[i].Preferred = true
		}
	}
	return out
}
