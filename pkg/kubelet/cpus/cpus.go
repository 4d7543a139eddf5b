// Package cpus gives containers CPUs of their own: the CPU manager.
//
// Flow: New reads who has which CPUs -> Allocate, asked by the topology manager at a pod's admission, has decide choose CPUs
// for each container of a guaranteed pod which asks for whole ones, and takes them out of the shared pool -> Of tells on
// which CPUs a container runs -> Release puts a pod's back. The state is in a file of upstream's form before a container
// starts. Under the policy none nothing is given and nothing is said of CPUs. All methods may be called at once, but
// Allocate, which its caller serializes.
package cpus

import (
	"errors"
	"fmt"
	"strconv"
	"sync"

	v1 "k8s.io/api/core/v1"
	"k8s.io/utils/cpuset"

	"github.com/sextant-k8s/sextant/pkg/kubelet/lifecycle"
	"github.com/sextant-k8s/sextant/pkg/kubelet/topology"
)

// Config is what a Manager works with.
type Config struct {
	// Dir holds the state file.
	Dir     string
	Layout  topology.Layout
	Policy  string
	Options map[string]string
	// Reserved are CPUs never given away; with none named, Spare is how many milli-CPUs the system and the kubelet need.
	Reserved cpuset.CPUSet
	Spare    int64
	// Changed: the shared pool is another.
	Changed func()
}

// Policies by upstream's names.
const (
	none   = "none"
	static = "static"
)

// Manager knows who has which CPUs.
type Manager struct {
	cfg      Config
	options  Options
	reserved cpuset.CPUSet

	mu    sync.Mutex
	state state
}

// New reads the state, and refuses one which does not fit the machine or the policy.
func New(cfg Config) (*Manager, error) {
	if cfg.Policy == "" {
		cfg.Policy = none
	}
	if cfg.Policy != none && cfg.Policy != static {
		return nil, fmt.Errorf("cpuManagerPolicy %q: want none or static", cfg.Policy)
	}
	m := &Manager{cfg: cfg}
	if err := m.parse(); err != nil {
		return nil, err
	}
	s, ok, err := read(cfg.Dir, cfg.Policy)
	if err != nil {
		return nil, fmt.Errorf("start cpu manager error: %w", err)
	}
	m.state = s
	if cfg.Policy == none {
		return m, write(cfg.Dir, cfg.Policy, m.state)
	}
	all := cfg.Layout.All()
	if m.reserved = cfg.Reserved; m.reserved.IsEmpty() {
		n := int((cfg.Spare + 999) / 1000)
		if n == 0 {
			return nil, errors.New("[cpumanager] unable to determine reserved CPU resources for static policy: the static policy requires systemReserved.cpu + kubeReserved.cpu, or reservedSystemCPUs, to be greater than zero")
		}
		if n > all.Size() {
			return nil, fmt.Errorf("systemReserved.cpu + kubeReserved.cpu are %d CPUs of %d", n, all.Size())
		}
		m.reserved = take(cfg.Layout.CPUs, all, n, Options{})
	}
	if !m.reserved.IsSubsetOf(all) {
		return nil, fmt.Errorf("reservedSystemCPUs %s are not all online: there are %s", m.reserved, all)
	}
	if !ok || s.shared.IsEmpty() && len(s.given) == 0 {
		m.state.shared = all
		if m.options.Strict {
			m.state.shared = all.Difference(m.reserved)
		}
	} else if err := m.check(all); err != nil {
		return nil, fmt.Errorf("start cpu manager error: %w; please drain this node and delete the CPU manager checkpoint file %q before restarting Kubelet", err, cfg.Dir+"/"+stateFile)
	}
	return m, write(cfg.Dir, cfg.Policy, m.state)
}

func (m *Manager) parse() error {
	o := &m.options
	for name, value := range m.cfg.Options {
		on, err := strconv.ParseBool(value)
		if err != nil {
			return fmt.Errorf("cpuManagerPolicyOptions %s=%s: want true or false", name, value)
		}
		dst, ok := map[string]*bool{"full-pcpus-only": &o.FullCores, "distribute-cpus-across-numa": &o.AcrossNodes, "align-by-socket": &o.BySocket,
			"distribute-cpus-across-cores": &o.AcrossCores, "strict-cpu-reservation": &o.Strict, "prefer-align-cpus-by-uncorecache": &o.ByCache}[name]
		if !ok {
			return fmt.Errorf("cpuManagerPolicyOptions: unsupported cpumanager option: %q (%s)", name, value)
		}
		*dst = on
	}
	if m.cfg.Policy == none && len(m.cfg.Options) > 0 {
		return errors.New("cpuManagerPolicyOptions are for the policy static; cpuManagerPolicy is none")
	}
	switch {
	case o.FullCores && o.AcrossCores:
		return errors.New("cpuManagerPolicyOptions full-pcpus-only and distribute-cpus-across-cores can not be used at the same time")
	case o.ByCache && (o.AcrossNodes || o.AcrossCores):
		return errors.New("cpuManagerPolicyOptions prefer-align-cpus-by-uncorecache can not be used with distribute-cpus-across-numa or distribute-cpus-across-cores")
	}
	return nil
}

// check tells whether a state fits the machine.
func (m *Manager) check(all cpuset.CPUSet) error {
	known := m.state.shared
	if !m.options.Strict && !m.reserved.IsSubsetOf(m.state.shared) {
		return fmt.Errorf("not all reserved cpus: %q are present in defaultCpuSet: %q", m.reserved, m.state.shared)
	}
	if m.options.Strict && !m.reserved.Intersection(m.state.shared).IsEmpty() {
		return fmt.Errorf("some of strictly reserved cpus: %q are present in defaultCpuSet: %q", m.reserved.Intersection(m.state.shared), m.state.shared)
	}
	for uid, list := range m.state.given {
		for name, set := range list {
			if !set.Intersection(m.state.shared).IsEmpty() {
				return fmt.Errorf("pod: %s, container: %s cpuset: %q overlaps with default cpuset %q", uid, name, set, m.state.shared)
			}
			known = known.Union(set)
		}
	}
	if m.options.Strict {
		known = known.Union(m.reserved)
	}
	if !known.Equals(all) {
		return fmt.Errorf("current set of available CPUs %q doesn't match with CPUs in state %q", all, known)
	}
	return nil
}

// Whole is how many CPUs of its own a container of a pod gets: those of a guaranteed pod, when it asks for whole ones.
func (m *Manager) Whole(pod *v1.Pod, c *v1.Container) int {
	q := c.Resources.Requests.Cpu()
	if m.cfg.Policy != static || pod.Spec.Resources != nil || lifecycle.QOS(pod) != v1.PodQOSGuaranteed || q.Value()*1000 != q.MilliValue() {
		return 0
	}
	return int(q.Value())
}

// Exclusive tells whether a pod has CPUs of its own.
func (m *Manager) Exclusive(uid string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.state.given[uid]) > 0
}

// ask gathers what can be given to a container of a pod.
func (m *Manager) askLocked(pod *v1.Pod, name string, need int) (a Ask, own cpuset.CPUSet) {
	a = Ask{CPUs: m.cfg.Layout.CPUs, Free: m.state.shared.Difference(m.reserved), Need: need, Options: m.options}
	given := m.state.given[string(pod.UID)]
	// An init container has run when the main ones start; a sidecar runs beside them.
	passing, kept := cpuset.New(), cpuset.New()
	once := map[string]bool{}
	for _, c := range pod.Spec.InitContainers {
		once[c.Name] = c.RestartPolicy == nil || *c.RestartPolicy != v1.ContainerRestartPolicyAlways
	}
	for other, set := range given {
		switch {
		case other == name:
			own = set
		case once[other]:
			passing = passing.Union(set)
		default:
			kept = kept.Union(set)
		}
	}
	a.Reusable = passing.Difference(kept)
	return a, own
}

// Hints are from which NUMA nodes a container could be served.
func (m *Manager) Hints(pod *v1.Pod, c *v1.Container) topology.Hints {
	n := m.Whole(pod, c)
	if n == 0 {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	a, own := m.askLocked(pod, c.Name, n)
	if !own.IsEmpty() {
		if own.Size() != n {
			return topology.Hints{string(v1.ResourceCPU): {}}
		}
		a.Free, a.Reusable = own, own
	}
	return topology.Hints{string(v1.ResourceCPU): hints(a, m.cfg.Layout.Nodes)}
}

// PodHints are from which NUMA nodes all containers of a pod could be served.
func (m *Manager) PodHints(pod *v1.Pod) topology.Hints {
	sum, most := 0, 0
	for i := range pod.Spec.InitContainers {
		c := &pod.Spec.InitContainers[i]
		if c.RestartPolicy != nil && *c.RestartPolicy == v1.ContainerRestartPolicyAlways {
			sum += m.Whole(pod, c)
		} else {
			most = max(most, sum+m.Whole(pod, c))
		}
	}
	for i := range pod.Spec.Containers {
		sum += m.Whole(pod, &pod.Spec.Containers[i])
	}
	n := max(sum, most)
	if n == 0 {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	a, _ := m.askLocked(pod, "", n)
	return topology.Hints{string(v1.ResourceCPU): hints(a, m.cfg.Layout.Nodes)}
}

// Allocate takes a container's CPUs out of the shared pool.
func (m *Manager) Allocate(pod *v1.Pod, c *v1.Container, from topology.Hint) error {
	n := m.Whole(pod, c)
	if n == 0 {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	a, own := m.askLocked(pod, c.Name, n)
	if !own.IsEmpty() {
		return nil
	}
	a.Nodes = from.Nodes
	set, err := decide(a)
	if err != nil {
		return err
	}
	uid := string(pod.UID)
	if m.state.given[uid] == nil {
		m.state.given[uid] = map[string]cpuset.CPUSet{}
	}
	m.state.given[uid][c.Name] = set
	m.state.shared = m.state.shared.Difference(set)
	m.cfg.Changed()
	return write(m.cfg.Dir, m.cfg.Policy, m.state)
}

// Of are the CPUs a container runs on, and whether it has them alone; empty is all there are.
func (m *Manager) Of(uid, name string) (cpuset.CPUSet, bool) {
	if m.cfg.Policy == none {
		return cpuset.New(), false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if set, ok := m.state.given[uid][name]; ok {
		return set, true
	}
	return m.state.shared, false
}

// Allocatable are the CPUs that can be given away.
func (m *Manager) Allocatable() cpuset.CPUSet { return m.cfg.Layout.All().Difference(m.reserved) }

// Release puts a pod's CPUs back into the shared pool.
func (m *Manager) Release(uid string) error {
	return m.Keep(func(pod string) bool { return pod != uid })
}

// Keep puts the CPUs of all pods back but those kept.
func (m *Manager) Keep(keep func(uid string) bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	changed := false
	for uid, list := range m.state.given {
		if keep(uid) {
			continue
		}
		for _, set := range list {
			m.state.shared = m.state.shared.Union(set)
		}
		delete(m.state.given, uid)
		changed = true
	}
	if !changed {
		return nil
	}
	m.cfg.Changed()
	return write(m.cfg.Dir, m.cfg.Policy, m.state)
}
