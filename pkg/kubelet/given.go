package kubelet

import (
	"context"
	"maps"
	"sort"

	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"k8s.io/utils/cpuset"

	"github.com/sextant-k8s/sextant/pkg/kubelet/lifecycle"
)

// Give is what makes a container's devices usable in it.
func (m *managers) Give(ctx context.Context, pod *v1.Pod, c *v1.Container) (lifecycle.Given, error) {
	g := lifecycle.Given{Annotations: map[string]string{}}
	answers, err := m.devices.Given(ctx, string(pod.UID), c)
	if err != nil {
		return g, err
	}
	once := map[string]bool{}
	first := func(kind, name string) bool {
		fresh := !once[kind+" "+name]
		once[kind+" "+name] = true
		return fresh
	}
	for _, a := range answers {
		for _, name := range sortedNames(a.Envs) {
			if first("env", name) {
				g.Envs = append(g.Envs, &runtimeapi.KeyValue{Key: name, Value: []byte(a.Envs[name])})
			}
		}
		for _, d := range a.Devices {
			if first("device", d.ContainerPath) {
				g.Devices = append(g.Devices, &runtimeapi.Device{HostPath: d.HostPath, ContainerPath: d.ContainerPath, Permissions: d.Permissions})
			}
		}
		for _, x := range a.Mounts {
			if first("mount", x.ContainerPath) {
				g.Mounts = append(g.Mounts, &runtimeapi.Mount{HostPath: x.HostPath, ContainerPath: x.ContainerPath, Readonly: x.ReadOnly})
			}
		}
		for _, d := range a.CdiDevices {
			if first("cdi", d.Name) {
				g.CDI = append(g.CDI, &runtimeapi.CDIDevice{Name: d.Name})
			}
		}
		maps.Copy(g.Annotations, a.Annotations)
	}
	shares, err := m.claims.Of(pod, c)
	if err != nil {
		return g, err
	}
	for _, s := range shares {
		for _, d := range s.Devices {
			for _, id := range d.CDIDeviceIDs {
				if first("cdi", id) {
					g.CDI = append(g.CDI, &runtimeapi.CDIDevice{Name: id})
				}
			}
		}
	}
	return g, nil
}

func sortedNames(m map[string]string) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	sort.Strings(out)
	return out
}

// Place writes where a container runs. Who has CPUs alone is not held back on them.
func (m *managers) Place(pod *v1.Pod, c *v1.Container, r *runtimeapi.LinuxContainerResources) {
	set, alone := m.cpus.Of(string(pod.UID), c.Name)
	r.CpusetCpus = set.String()
	if alone {
		r.CpuQuota, r.CpuPeriod = 0, 0
	}
	for _, size := range m.pages {
		n := c.Resources.Limits[v1.ResourceName(v1.ResourceHugePagesPrefix+size)]
		r.HugepageLimits = append(r.HugepageLimits, &runtimeapi.HugepageLimit{PageSize: kernelSize(size), Limit: uint64(n.Value())})
	}
	m.swap.place(pod, c, r)
	if alone := m.k.cfg.Kubelet.SingleProcessOOMKill; m.k.cgroups.v2 && (alone == nil || !*alone) {
		// A container that lost one process to the want of memory is seldom of use.
		if r.Unified == nil {
			r.Unified = map[string]string{}
		}
		r.Unified["memory.oom.group"] = "1"
	}
	if blocks := m.memory.Of(string(pod.UID), c.Name); len(blocks) > 0 {
		r.CpusetMems = cpuset.New(blocks[0].NUMAAffinity...).String()
	}
}
