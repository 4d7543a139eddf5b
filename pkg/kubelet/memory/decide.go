package memory

import (
	"errors"
	"maps"
	"slices"

	v1 "k8s.io/api/core/v1"

	"github.com/sextant-k8s/sextant/pkg/kubelet/topology"
)

// Wish is what a container asks for, in bytes: memory, and huge pages by their size.
type Wish map[v1.ResourceName]uint64

// place chooses from which NUMA nodes a wish is met, given where the topology manager wants it, 0 for anywhere. reusable is,
// by node set, what the pod's init containers hand on.
func place(m NUMANodeMap, w Wish, reusable []Block, from topology.Mask) (topology.Mask, error) {
	all := hints(m, w, reusable)
	best, found := topology.Hint{}, false
	for _, h := range all {
		if from != 0 && !from.Within(h.Nodes) {
			continue
		}
		if !found || h.Preferred && !best.Preferred || h.Preferred == best.Preferred && h.Nodes.Count() < best.Nodes.Count() {
			best, found = h, true
		}
	}
	switch {
	case found:
		return best.Nodes, nil
	case from != 0:
		return 0, errors.New("[memorymanager] failed to find NUMA nodes to extend the current topology hint")
	}
	return 0, errors.New("[memorymanager] failed to get the default NUMA affinity, no NUMA nodes with enough memory is available")
}

// hints are the sets of NUMA nodes which can meet a wish. Sets of the fewest nodes that ever could are preferred. A node
// which serves by itself is in no group, and one which serves in a group serves in that alone.
func hints(m NUMANodeMap, w Wish, reusable []Block) []topology.Hint {
	nodes := slices.Sorted(maps.Keys(m))
	out := []topology.Hint{}
	least := len(nodes) + 1
	for set := 1; set < 1<<len(nodes); set++ {
		var mask topology.Mask
		for i, n := range nodes {
			if set>>i&1 == 1 {
				mask |= topology.MaskOf(n)
			}
		}
		ever, now := true, true
		for name, need := range w {
			var most, free uint64
			for _, n := range mask.Nodes() {
				if t := m[n].MemoryMap[name]; t != nil {
					most, free = most+t.Allocatable, free+t.Free
				}
			}
			for _, b := range reusable {
				if b.Type == name && topology.MaskOf(b.NUMAAffinity...) == mask {
					free += b.Size
				}
			}
			ever, now = ever && most >= need, now && free >= need
		}
		if ever {
			least = min(least, mask.Count())
		}
		if ever && now && grouped(m, mask) {
			out = append(out, topology.Hint{Nodes: mask})
		}
	}
	for i := range out {
		out[i].Preferred = out[i].Nodes.Count() == least
	}
	return out
}

// grouped tells whether nodes may serve together: each serves nobody yet, or this very group.
func grouped(m NUMANodeMap, mask topology.Mask) bool {
	for _, n := range mask.Nodes() {
		if m[n].NumberOfAssignments > 0 && topology.MaskOf(m[n].Cells...) != mask {
			return false
		}
	}
	return true
}

// book writes blocks into the tables of their nodes: as much as the first has, then the next. back takes it out again.
func (m NUMANodeMap) book(blocks []Block) {
	once := map[topology.Mask]bool{}
	for _, b := range blocks {
		mask, left := topology.MaskOf(b.NUMAAffinity...), b.Size
		for _, n := range b.NUMAAffinity {
			st := m[n]
			if !once[mask] {
				st.NumberOfAssignments++
				st.Cells = slices.Clone(b.NUMAAffinity)
			}
			if t := st.MemoryMap[b.Type]; t != nil {
				part := min(t.Free, left)
				t.Free, t.Reserved, left = t.Free-part, t.Reserved+part, left-part
			}
		}
		once[mask] = true
	}
}

// machine is a fresh machine's tables, with what is reserved of each node.
func machine(l topology.Layout, reserved map[int]Wish) NUMANodeMap {
	out := NUMANodeMap{}
	for _, n := range l.Nodes {
		st := &NUMANodeState{MemoryMap: map[v1.ResourceName]*MemoryTable{}, Cells: []int{n}}
		pages := uint64(0)
		for size, count := range l.Pages[n] {
			pages += size * count
			name := v1.ResourceName(v1.ResourceHugePagesPrefix + pageName(size))
			st.MemoryMap[name] = table(size*count, 0, reserved[n][name])
		}
		st.MemoryMap[v1.ResourceMemory] = table(l.Memory[n], pages, reserved[n][v1.ResourceMemory])
		out[n] = st
	}
	return out
}

func table(total, other, reserved uint64) *MemoryTable {
	t := &MemoryTable{TotalMemSize: total, SystemReserved: reserved}
	if total > other+reserved {
		t.Allocatable = total - other - reserved
	}
	t.Free = t.Allocatable
	return t
}
