// Package memory gives containers memory and huge pages of certain NUMA nodes: the memory manager.
//
// Flow: New reads who has which memory -> Allocate, asked by the topology manager at a pod's admission, books what each
// container of a guaranteed pod asks for on the nodes which place chooses -> Of tells from which nodes a container's memory
// comes -> Release takes it out of the books. The state is in a file of upstream's form before a container starts. Under
// the policy None nothing is booked. All methods may be called at once, but Allocate, which its caller serializes.
package memory

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"

	"github.com/sextant-k8s/sextant/pkg/kubelet/lifecycle"
	"github.com/sextant-k8s/sextant/pkg/kubelet/topology"
)

// Config is what a Manager works with.
type Config struct {
	// Dir holds the state file.
	Dir    string
	Layout topology.Layout
	Policy string
	// Reserved is, by NUMA node, what containers do not get; Kept is what the node keeps from pods in all. They must agree.
	Reserved []kubeletv1beta1.MemoryReservation
	Kept     v1.ResourceList
}

// Manager knows who has which memory.
type Manager struct {
	cfg Config

	mu    sync.Mutex
	fresh NUMANodeMap
	state MemoryManagerCheckpoint
}

// New reads the state, and refuses one which does not fit the machine or the policy.
func New(cfg Config) (*Manager, error) {
	if cfg.Policy == "" {
		cfg.Policy = kubeletv1beta1.NoneMemoryManagerPolicy
	}
	if cfg.Policy != kubeletv1beta1.NoneMemoryManagerPolicy && cfg.Policy != kubeletv1beta1.StaticMemoryManagerPolicy {
		return nil, fmt.Errorf("memoryManagerPolicy %q: want None or Static", cfg.Policy)
	}
	c, ok, err := read(cfg.Dir, cfg.Policy)
	if err != nil {
		return nil, fmt.Errorf("start memory manager error: %w", err)
	}
	m := &Manager{cfg: cfg, state: MemoryManagerCheckpoint{PolicyName: cfg.Policy, MachineState: NUMANodeMap{}, Entries: ContainerMemoryAssignments{}}}
	if !m.on() {
		return m, write(cfg.Dir, m.state)
	}
	reserved, err := m.reserved()
	if err != nil {
		return nil, err
	}
	m.fresh = machine(cfg.Layout, reserved)
	if ok && c.Entries != nil {
		m.state.Entries = c.Entries
	}
	if err := m.rebook(); err != nil {
		return nil, err
	}
	for n, st := range c.MachineState {
		now := m.fresh[n]
		if now == nil || !maps.EqualFunc(now.MemoryMap, st.MemoryMap, func(a, b *MemoryTable) bool {
			return a.TotalMemSize == b.TotalMemSize && a.SystemReserved == b.SystemReserved
		}) {
			return nil, fmt.Errorf("start memory manager error: [memorymanager] the expected machine state is different from the real one, please drain this node and delete the memory manager checkpoint file %q before restarting Kubelet", cfg.Dir+"/"+stateFile)
		}
	}
	return m, write(cfg.Dir, m.state)
}

func (m *Manager) on() bool { return m.cfg.Policy == kubeletv1beta1.StaticMemoryManagerPolicy }

// reserved is by node what containers do not get; it must come to what the node keeps from pods.
func (m *Manager) reserved() (map[int]Wish, error) {
	out, total := map[int]Wish{}, v1.ResourceList{}
	for _, r := range m.cfg.Reserved {
		n := int(r.NumaNode)
		if !slices.Contains(m.cfg.Layout.Nodes, n) {
			return nil, fmt.Errorf("reservedMemory: there is no NUMA node %d", n)
		}
		if out[n] == nil {
			out[n] = Wish{}
		}
		for name, q := range r.Limits {
			out[n][name] += uint64(q.Value())
			sum := total[name]
			sum.Add(q)
			total[name] = sum
		}
	}
	for name, want := range m.cfg.Kept {
		if name != v1.ResourceMemory && !strings.HasPrefix(string(name), v1.ResourceHugePagesPrefix) {
			continue
		}
		if got := total[name]; got.Cmp(want) != 0 {
			return nil, fmt.Errorf("the total amount %q of type %q is not equal to the value %q determined by Node Allocatable feature", got.String(), name, want.String())
		}
	}
	return out, nil
}

// rebook makes the machine's tables from who has what.
func (m *Manager) rebook() error {
	now := NUMANodeMap{}
	for n, st := range m.fresh {
		c := &NUMANodeState{MemoryMap: map[v1.ResourceName]*MemoryTable{}, Cells: slices.Clone(st.Cells)}
		for name, t := range st.MemoryMap {
			x := *t
			c.MemoryMap[name] = &x
		}
		now[n] = c
	}
	for _, uid := range slices.Sorted(maps.Keys(m.state.Entries)) {
		for _, name := range slices.Sorted(maps.Keys(m.state.Entries[uid])) {
			blocks := m.state.Entries[uid][name]
			for _, b := range blocks {
				for _, n := range b.NUMAAffinity {
					if now[n] == nil {
						return fmt.Errorf("start memory manager error: [memorymanager] (pod: %s, container: %s) the memory assignment includes the NUMA that does not exist, please delete %q", uid, name, m.cfg.Dir+"/"+stateFile)
					}
				}
			}
			now.book(blocks)
		}
	}
	m.state.MachineState = now
	return nil
}

// wish is what a container of a guaranteed pod asks for.
func (m *Manager) wish(pod *v1.Pod, c *v1.Container) Wish {
	if !m.on() || pod.Spec.Resources != nil || lifecycle.QOS(pod) != v1.PodQOSGuaranteed {
		return nil
	}
	out := Wish{}
	for name, q := range c.Resources.Requests {
		if (name == v1.ResourceMemory || strings.HasPrefix(string(name), v1.ResourceHugePagesPrefix)) && q.Value() > 0 {
			out[name] = uint64(q.Value())
		}
	}
	return out
}

// reusableLocked is what init containers, which have run when the main ones start, hand on.
func (m *Manager) reusableLocked(pod *v1.Pod, name string) []Block {
	left := map[string]*Block{}
	key := func(b Block) string { return fmt.Sprint(b.Type, b.NUMAAffinity) }
	given := m.state.Entries[string(pod.UID)]
	for _, c := range pod.Spec.InitContainers {
		if c.Name == name || isSidecar(&c) {
			continue
		}
		for _, b := range given[c.Name] {
			if have := left[key(b)]; have == nil {
				left[key(b)] = &b
			} else {
				have.Size = max(have.Size, b.Size)
			}
		}
	}
	var out []Block
	for _, k := range slices.Sorted(maps.Keys(left)) {
		out = append(out, *left[k])
	}
	return out
}

func perResource(w Wish, list []topology.Hint) topology.Hints {
	out := topology.Hints{}
	for name := range w {
		out[string(name)] = list
	}
	return out
}

// Hints are from which NUMA nodes a container could be served.
func (m *Manager) Hints(pod *v1.Pod, c *v1.Container) topology.Hints {
	w := m.wish(pod, c)
	if len(w) == 0 {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if own := m.state.Entries[string(pod.UID)][c.Name]; len(own) > 0 {
		return perResource(w, []topology.Hint{{Nodes: topology.MaskOf(own[0].NUMAAffinity...), Preferred: true}})
	}
	return perResource(w, hints(m.state.MachineState, w, m.reusableLocked(pod, c.Name)))
}

// isSidecar tells an init container that runs beside the main ones from those that are through before them, whatever their policy.
func isSidecar(c *v1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == v1.ContainerRestartPolicyAlways
}

// PodHints are from which NUMA nodes all containers of a pod could be served.
func (m *Manager) PodHints(pod *v1.Pod) topology.Hints {
	sum, most := Wish{}, Wish{}
	for i := range pod.Spec.InitContainers {
		c := &pod.Spec.InitContainers[i]
		for name, n := range m.wish(pod, c) {
			if isSidecar(c) {
				sum[name] += n
			} else {
				most[name] = max(most[name], sum[name]+n)
			}
		}
	}
	for i := range pod.Spec.Containers {
		for name, n := range m.wish(pod, &pod.Spec.Containers[i]) {
			sum[name] += n
		}
	}
	for name, n := range most {
		sum[name] = max(sum[name], n)
	}
	if len(sum) == 0 {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return perResource(sum, hints(m.state.MachineState, sum, m.reusableLocked(pod, "")))
}

// Allocate books a container's memory. What init containers of the pod have had counts as its own.
func (m *Manager) Allocate(pod *v1.Pod, c *v1.Container, from topology.Hint) error {
	w := m.wish(pod, c)
	if len(w) == 0 {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	uid := string(pod.UID)
	if len(m.state.Entries[uid][c.Name]) > 0 {
		return nil
	}
	reusable := m.reusableLocked(pod, c.Name)
	mask, err := place(m.state.MachineState, w, reusable, from.Nodes)
	if err != nil {
		return err
	}
	// What it takes over from an init container is in the books of that one no more.
	for _, init := range pod.Spec.InitContainers {
		for i, b := range m.state.Entries[uid][init.Name] {
			if !isSidecar(&init) && topology.MaskOf(b.NUMAAffinity...) == mask {
				m.state.Entries[uid][init.Name][i].Size -= min(b.Size, w[b.Type])
			}
		}
	}
	var blocks []Block
	for _, name := range slices.Sorted(maps.Keys(w)) {
		blocks = append(blocks, Block{NUMAAffinity: mask.Nodes(), Type: name, Size: w[name]})
	}
	if m.state.Entries[uid] == nil {
		m.state.Entries[uid] = map[string][]Block{}
	}
	m.state.Entries[uid][c.Name] = blocks
	if err := m.rebook(); err != nil {
		return err
	}
	return write(m.cfg.Dir, m.state)
}

// Of are the blocks of a container.
func (m *Manager) Of(uid, name string) []Block {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.state.Entries[uid][name]
}

// Allocatable are blocks of all that containers can have.
func (m *Manager) Allocatable() []Block {
	var out []Block
	for _, n := range slices.Sorted(maps.Keys(m.fresh)) {
		for _, name := range slices.Sorted(maps.Keys(m.fresh[n].MemoryMap)) {
			if t := m.fresh[n].MemoryMap[name]; t.Allocatable > 0 {
				out = append(out, Block{NUMAAffinity: []int{n}, Type: name, Size: t.Allocatable})
			}
		}
	}
	return out
}

// Release takes a pod's memory out of the books.
func (m *Manager) Release(uid string) error {
	return m.Keep(func(pod string) bool { return pod != uid })
}

// Keep does so for all pods but those kept.
func (m *Manager) Keep(keep func(uid string) bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	before := len(m.state.Entries)
	maps.DeleteFunc(m.state.Entries, func(uid string, _ map[string][]Block) bool { return !keep(uid) })
	if len(m.state.Entries) == before {
		return nil
	}
	if err := m.rebook(); err != nil {
		return err
	}
	return write(m.cfg.Dir, m.state)
}

// pageName writes a size of huge pages as resources do: 2Mi, 1Gi.
func pageName(size uint64) string {
	return resource.NewQuantity(int64(size), resource.BinarySI).String()
}
