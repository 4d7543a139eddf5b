package topology

import (
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"

	"k8s.io/utils/cpuset"
)

// CPU is where one logical CPU sits.
type CPU struct {
	ID, Core, Socket, Node int
	// Cache names the CPUs which share its last level of cache; by the lowest of them.
	Cache int
}

// Layout is a machine's CPUs, and the memory of its NUMA nodes in bytes.
type Layout struct {
	Machine
	CPUs   []CPU
	Memory map[int]uint64
	// Pages are, by node, how many huge pages of each size (bytes) there are.
	Pages map[int]map[uint64]uint64
}

// All are the machine's CPUs.
func (l Layout) All() cpuset.CPUSet {
	var ids []int
	for _, c := range l.CPUs {
		ids = append(ids, c.ID)
	}
	return cpuset.New(ids...)
}

// Read reads the layout below sys, which is /sys but in tests. A machine which tells of no NUMA nodes is one node.
func Read(sys string) (Layout, error) {
	l := Layout{Machine: Machine{Distance: map[int][]int{}}, Memory: map[int]uint64{}, Pages: map[int]map[uint64]uint64{}}
	online, err := cpuset.Parse(text(sys, "devices/system/cpu/online"))
	if err != nil || online.IsEmpty() {
		return l, fmt.Errorf("reading the machine's CPUs of %s: %v", sys, err)
	}
	nodeOf := map[int]int{}
	nodes, _ := filepath.Glob(filepath.Join(sys, "devices/system/node/node[0-9]*")) // the pattern is well-formed
	for _, dir := range nodes {
		id, err := strconv.Atoi(strings.TrimPrefix(filepath.Base(dir), "node"))
		if err != nil || id > 63 {
			continue
		}
		l.Nodes = append(l.Nodes, id)
		cpus, err := cpuset.Parse(text(dir, "cpulist"))
		if err != nil {
			return l, fmt.Errorf("reading the CPUs of NUMA node %d: %w", id, err)
		}
		for _, c := range cpus.List() {
			nodeOf[c] = id
		}
		for _, d := range strings.Fields(text(dir, "distance")) {
			n, _ := strconv.Atoi(d)
			l.Distance[id] = append(l.Distance[id], n)
		}
		l.Memory[id] = memTotal(text(dir, "meminfo"))
		l.Pages[id] = pages(filepath.Join(dir, "hugepages"))
	}
	sort.Ints(l.Nodes)
	if len(l.Nodes) == 0 {
		l.Nodes, l.Distance[0] = []int{0}, []int{10}
		raw, err := os.ReadFile("/proc/meminfo")
		if err != nil {
			return l, err
		}
		l.Memory[0], l.Pages[0] = memTotal(string(raw)), pages(filepath.Join(sys, "kernel/mm/hugepages"))
	}
	cores := map[string]int{}
	for _, id := range online.List() {
		dir := filepath.Join(sys, "devices/system/cpu", fmt.Sprintf("cpu%d", id))
		socket := max(number(dir, "topology/physical_package_id"), 0)
		key := fmt.Sprintf("%d/%d", socket, number(dir, "topology/core_id"))
		if text(dir, "topology/core_id") == "" {
			key = fmt.Sprintf("alone/%d", id)
		}
		// A core is known by its lowest CPU: core IDs repeat between sockets.
		if _, ok := cores[key]; !ok {
			cores[key] = id
		}
		c := CPU{ID: id, Core: cores[key], Socket: socket, Node: nodeOf[id], Cache: cores[key]}
		for level := 4; level >= 0; level-- {
			if shared, err := cpuset.Parse(text(dir, fmt.Sprintf("cache/index%d/shared_cpu_list", level))); err == nil && !shared.IsEmpty() {
				c.Cache = shared.List()[0]
				break
			}
		}
		l.CPUs = append(l.CPUs, c)
	}
	return l, nil
}

func text(dir, name string) string {
	raw, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(raw))
}

func number(dir, name string) int {
	n, _ := strconv.Atoi(text(dir, name))
	return n
}

// memTotal finds the line of MemTotal, of a node's or the machine's meminfo; bytes.
func memTotal(meminfo string) uint64 {
	for _, line := range strings.Split(meminfo, "\n") {
		if _, rest, ok := strings.Cut(line, "MemTotal:"); ok {
			n, _ := strconv.ParseUint(strings.Fields(rest + " 0")[0], 10, 64)
			return n << 10
		}
	}
	return 0
}

// pages counts huge pages by their size in bytes.
func pages(dir string) map[uint64]uint64 {
	out := map[uint64]uint64{}
	found, _ := filepath.Glob(filepath.Join(dir, "hugepages-*kB"))
	for _, d := range found {
		kb, err := strconv.ParseUint(strings.TrimSuffix(strings.TrimPrefix(filepath.Base(d), "hugepages-"), "kB"), 10, 64)
		if err == nil {
			out[kb<<10] = uint64(max(number(d, "nr_hugepages"), 0))
		}
	}
	return out
}
