package devices

import (
	"context"
	"fmt"
	"slices"
	"sort"
	"time"

	v1 "k8s.io/api/core/v1"
	plugin "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"

	"github.com/sextant-k8s/sextant/pkg/kubelet/topology"
)

// patience bounds one question to a plugin.
const patience = 30 * time.Second

// wants are what a container asks of resources which plugins serve, in order of their names.
func (m *Manager) wantsLocked(c *v1.Container) []Ask {
	var out []Ask
	for name, q := range c.Resources.Limits {
		held := slices.ContainsFunc(m.given, func(g Grant) bool { return g.Resource == string(name) })
		if n := int(q.Value()); n > 0 && (m.kinds[string(name)] != nil || held) {
			out = append(out, Ask{Resource: string(name), Need: n, Container: c.Name})
		}
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Resource < out[j].Resource })
	return out
}

// fill completes an Ask with what is known now.
func (m *Manager) fillLocked(a Ask, pod *v1.Pod) Ask {
	a.Pod, a.Healthy, a.Taken = string(pod.UID), map[string]topology.Mask{}, map[string]bool{}
	if k := m.kinds[a.Resource]; k != nil {
		a.Registered = k.conn != nil
		for id, d := range k.devices {
			if d.healthy {
				a.Healthy[id] = d.nodes
			}
		}
	}
	once := map[string]bool{}
	for _, c := range pod.Spec.InitContainers {
		// A sidecar runs beside those which come after it.
		once[c.Name] = c.RestartPolicy == nil || *c.RestartPolicy != v1.ContainerRestartPolicyAlways
	}
	kept := map[string]bool{}
	var reusable []string
	for _, g := range m.given {
		if g.Resource != a.Resource {
			continue
		}
		for _, id := range g.IDs {
			a.Taken[id] = true
		}
		switch {
		case g.Pod != a.Pod:
		case g.Container == a.Container:
			a.Own = g.IDs
		case once[g.Container]:
			reusable = append(reusable, g.IDs...)
		default:
			// Another main container, or a sidecar, keeps what it was handed on.
			for _, id := range g.IDs {
				kept[id] = true
			}
		}
	}
	for _, id := range sorted(reusable) {
		if !kept[id] && !slices.Contains(a.Reusable, id) {
			a.Reusable = append(a.Reusable, id)
		}
	}
	return a
}

// Hints are from which NUMA nodes a container could be served.
func (m *Manager) Hints(pod *v1.Pod, c *v1.Container) topology.Hints {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := topology.Hints{}
	for _, a := range m.wantsLocked(c) {
		out[a.Resource] = hints(m.fillLocked(a, pod), m.cfg.Nodes)
	}
	return out
}

// PodHints are from which NUMA nodes all containers of a pod could be served: main ones together, or the largest init one.
func (m *Manager) PodHints(pod *v1.Pod) topology.Hints {
	m.mu.Lock()
	defer m.mu.Unlock()
	need := map[string]int{}
	count := func(list []v1.Container, init bool) map[string]int {
		sum := map[string]int{}
		for i := range list {
			for _, a := range m.wantsLocked(&list[i]) {
				if init && (list[i].RestartPolicy == nil || *list[i].RestartPolicy != v1.ContainerRestartPolicyAlways) {
					sum[a.Resource] = max(sum[a.Resource], a.Need)
				} else {
					sum[a.Resource] += a.Need
				}
			}
		}
		return sum
	}
	for _, sum := range []map[string]int{count(pod.Spec.InitContainers, true), count(pod.Spec.Containers, false)} {
		for name, n := range sum {
			need[name] = max(need[name], n)
		}
	}
	out := topology.Hints{}
	for name, n := range need {
		out[name] = hints(m.fillLocked(Ask{Resource: name, Need: n}, pod), m.cfg.Nodes)
	}
	return out
}

// Allocate gives a container its devices and writes down what their plugins answer.
func (m *Manager) Allocate(pod *v1.Pod, c *v1.Container, from topology.Hint) error {
	m.mu.Lock()
	wants := m.wantsLocked(c)
	m.mu.Unlock()
	for _, a := range wants {
		m.mu.Lock()
		a = m.fillLocked(a, pod)
		a.Nodes = from.Nodes
		k := m.kinds[a.Resource]
		m.mu.Unlock()
		choice, err := decide(a)
		if err != nil {
			return err
		}
		if choice.Keep {
			continue
		}
		if err := m.allocate(a, k, choice); err != nil {
			return err
		}
	}
	return nil
}

func (m *Manager) allocate(a Ask, k *kind, choice Choice) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	p := plugin.NewDevicePluginClient(k.conn)
	var preferred []string
	if missing := a.Need - len(choice.Must); missing > 0 && missing < len(choice.Among) && k.options.GetGetPreferredAllocationAvailable() {
		r, err := p.GetPreferredAllocation(ctx, &plugin.PreferredAllocationRequest{ContainerRequests: []*plugin.ContainerPreferredAllocationRequest{{
			AvailableDeviceIDs: sorted(append(slices.Clone(choice.Among), choice.Must...)), MustIncludeDeviceIDs: sorted(choice.Must), AllocationSize: int32(a.Need)}}})
		if err != nil {
			return err
		}
		if len(r.ContainerResponses) > 0 {
			preferred = r.ContainerResponses[0].DeviceIDs
		}
	}
	ids := settle(choice, a.Need, preferred)
	r, err := p.Allocate(ctx, &plugin.AllocateRequest{ContainerRequests: []*plugin.ContainerAllocateRequest{{DevicesIds: ids}}})
	if err != nil {
		return err
	}
	if len(r.ContainerResponses) == 0 {
		return fmt.Errorf("no containers return in allocation response %v", r)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.given = append(m.given, Grant{Pod: a.Pod, Container: a.Container, Resource: a.Resource, IDs: ids, answer: r.ContainerResponses[0]})
	return m.saveLocked()
}

// Given is what of a container's grants makes its devices usable; its plugins are told that it is about to start.
func (m *Manager) Given(ctx context.Context, uid string, c *v1.Container) ([]*plugin.ContainerAllocateResponse, error) {
	var out []*plugin.ContainerAllocateResponse
	m.mu.Lock()
	wants := m.wantsLocked(c)
	m.mu.Unlock()
	for _, a := range wants {
		m.mu.Lock()
		k := m.kinds[a.Resource]
		at := slices.IndexFunc(m.given, func(g Grant) bool {
			return g.Pod == uid && g.Container == c.Name && g.Resource == a.Resource
		})
		var g Grant
		if at >= 0 {
			g = m.given[at]
		}
		m.mu.Unlock()
		if at < 0 {
			return nil, fmt.Errorf("no devices found allocated in local cache for pod %s, container %s, resource %s", uid, c.Name, a.Resource)
		}
		if k == nil {
			return nil, fmt.Errorf("endpoint not found in cache for a registered resource: %s", a.Resource)
		}
		// A plugin which has not come back since the kubelet did cannot be told; what it answered then still holds.
		if k.conn != nil && k.options.GetPreStartRequired() {
			pctx, cancel := context.WithTimeout(ctx, plugin.KubeletPreStartContainerRPCTimeoutInSecs*time.Second)
			_, err := plugin.NewDevicePluginClient(k.conn).PreStartContainer(pctx, &plugin.PreStartContainerRequest{DevicesIds: g.IDs})
			cancel()
			if err != nil {
				return nil, fmt.Errorf("device plugin PreStartContainer rpc failed with err: %w", err)
			}
		}
		out = append(out, g.answer)
	}
	return out, nil
}

// Health is, by container name, how the devices a pod has are.
func (m *Manager) Health(uid string) map[string][]v1.ResourceStatus {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out map[string][]v1.ResourceStatus
	for _, g := range m.given {
		if g.Pod != uid {
			continue
		}
		st := v1.ResourceStatus{Name: v1.ResourceName(g.Resource)}
		for _, id := range g.IDs {
			h := v1.ResourceHealth{ResourceID: v1.ResourceID(id), Health: v1.ResourceHealthStatusUnknown}
			if k := m.kinds[g.Resource]; k != nil {
				if d, ok := k.devices[id]; ok && d.healthy {
					h.Health = v1.ResourceHealthStatusHealthy
				} else if ok {
					h.Health = v1.ResourceHealthStatusUnhealthy
				}
			}
			st.Resources = append(st.Resources, h)
		}
		if out == nil {
			out = map[string][]v1.ResourceStatus{}
		}
		out[g.Container] = append(out[g.Container], st)
	}
	return out
}

// Release takes a pod's devices back. The plugins are not told: their API has no word for it.
func (m *Manager) Release(uid string) error {
	return m.Keep(func(pod string) bool { return pod != uid })
}

// Keep takes back the devices of all pods but those kept.
func (m *Manager) Keep(keep func(uid string) bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	before := len(m.given)
	m.given = slices.DeleteFunc(m.given, func(g Grant) bool { return !keep(g.Pod) })
	if len(m.given) == before {
		return nil
	}
	return m.saveLocked()
}

// Share is devices of one resource, and the NUMA nodes they are near.
type Share struct {
	Resource string
	IDs      []string
	Nodes    []int
}

// Of are the devices of one container; of all healthy ones when uid is empty. Each device near nodes is a share of its own.
func (m *Manager) Of(uid, container string) []Share {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []Share
	add := func(name string, ids []string) {
		near := map[topology.Mask][]string{}
		for _, id := range ids {
			var mask topology.Mask
			if k := m.kinds[name]; k != nil {
				mask = k.devices[id].nodes
			}
			near[mask] = append(near[mask], id)
		}
		for mask, ids := range near {
			out = append(out, Share{name, sorted(ids), mask.Nodes()})
		}
	}
	if uid != "" {
		for _, g := range m.given {
			if g.Pod == uid && g.Container == container {
				add(g.Resource, g.IDs)
			}
		}
	} else {
		for name, k := range m.kinds {
			var ids []string
			for id, d := range k.devices {
				if d.healthy {
					ids = append(ids, id)
				}
			}
			add(name, ids)
		}
	}
	sort.Slice(out, func(i, j int) bool {
		a, b := out[i], out[j]
		return a.Resource < b.Resource || a.Resource == b.Resource && a.IDs[0] < b.IDs[0]
	})
	return out
}
