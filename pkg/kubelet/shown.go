package kubelet

import (
	"sort"

	v1 "k8s.io/api/core/v1"
	podresources "k8s.io/kubelet/pkg/apis/podresources/v1"

	"k8s.io/utils/cpuset"

	"github.com/sextant-k8s/sextant/pkg/kubelet/devices"
	"github.com/sextant-k8s/sextant/pkg/kubelet/memory"
)

// Pods are those which hold resources of the node.
func (m *managers) Pods() []*v1.Pod {
	var out []*v1.Pod
	for _, p := range m.k.pods.Pods() {
		if p.Status.Phase != v1.PodSucceeded && p.Status.Phase != v1.PodFailed {
			out = append(out, p)
		}
	}
	sort.Slice(out, func(i, j int) bool {
		return out[i].Namespace+"/"+out[i].Name < out[j].Namespace+"/"+out[j].Name
	})
	return out
}

func numa(nodes []int) *podresources.TopologyInfo {
	if len(nodes) == 0 {
		return nil
	}
	t := &podresources.TopologyInfo{}
	for _, n := range nodes {
		t.Nodes = append(t.Nodes, &podresources.NUMANode{ID: int64(n)})
	}
	return t
}

func shares(list []devices.Share) []*podresources.ContainerDevices {
	var out []*podresources.ContainerDevices
	for _, s := range list {
		out = append(out, &podresources.ContainerDevices{ResourceName: s.Resource, DeviceIds: s.IDs, Topology: numa(s.Nodes)})
	}
	return out
}

func ids(set cpuset.CPUSet) []int64 {
	var out []int64
	for _, id := range set.List() {
		out = append(out, int64(id))
	}
	return out
}

func blocks(list []memory.Block) []*podresources.ContainerMemory {
	var out []*podresources.ContainerMemory
	for _, b := range list {
		out = append(out, &podresources.ContainerMemory{MemoryType: string(b.Type), Size: b.Size, Topology: numa(b.NUMAAffinity)})
	}
	return out
}

// Container is what a container has of the node.
func (m *managers) Container(pod *v1.Pod, c *v1.Container) *podresources.ContainerResources {
	out := &podresources.ContainerResources{Name: c.Name, Devices: shares(m.devices.Of(string(pod.UID), c.Name))}
	if set, alone := m.cpus.Of(string(pod.UID), c.Name); alone {
		out.CpuIds = ids(set)
	}
	out.Memory = blocks(m.memory.Of(string(pod.UID), c.Name))
	claims, err := m.claims.Of(pod, c)
	if err != nil {
		return out // not prepared yet
	}
	for _, s := range claims {
		d := &podresources.DynamicResource{ClaimName: s.Claim, ClaimNamespace: s.Namespace}
		for _, x := range s.Devices {
			r := &podresources.ClaimResource{DriverName: x.Driver, PoolName: x.PoolName, DeviceName: x.DeviceName, ShareId: (*string)(x.ShareID)}
			for _, id := range x.CDIDeviceIDs {
				r.CdiDevices = append(r.CdiDevices, &podresources.CDIDevice{Name: id})
			}
			d.ClaimResources = append(d.ClaimResources, r)
		}
		out.DynamicResources = append(out.DynamicResources, d)
	}
	return out
}

// Allocatable is what containers can have.
func (m *managers) Allocatable() *podresources.AllocatableResourcesResponse {
	return &podresources.AllocatableResourcesResponse{Devices: shares(m.devices.Of("", "")), CpuIds: ids(m.cpus.Allocatable()), Memory: blocks(m.memory.Allocatable())}
}
