package rules

import (
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	podresource "k8s.io/component-helpers/resource"
)

// What a container that asks for nothing is scored as, so that such pods spread too.
const (
	scoredMilliCPU = 100
	scoredMemory   = 200 * 1024 * 1024
)

func milli(n int64) *resource.Quantity { return resource.NewMilliQuantity(n, resource.DecimalSI) }
func bytes(n int64) *resource.Quantity { return resource.NewQuantity(n, resource.BinarySI) }

// Amount is a quantity of a resource: CPU in thousandths, everything else in units.
type Amount struct {
	Name v1.ResourceName
	N    int64
}

// The table's numbers of the resources that every node has; others follow as they are seen.
const (
	cpu = iota
	memory
	storage
	firstExtended
)

var builtin = [firstExtended]v1.ResourceName{v1.ResourceCPU, v1.ResourceMemory, v1.ResourceEphemeralStorage}

// amountsOf answers what is not zero: CPU, memory and storage first, then the others by name. Pods are counted apart.
func amountsOf(list v1.ResourceList) []Amount {
	out := make([]Amount, 0, len(list))
	for name, q := range list {
		n := q.Value()
		if name == v1.ResourceCPU {
			n = q.MilliValue()
		}
		if n != 0 && name != v1.ResourcePods {
			out = append(out, Amount{name, n})
		}
	}
	slices.SortFunc(out, func(a, b Amount) int {
		x, y := slices.Index(builtin[:], a.Name), slices.Index(builtin[:], b.Name)
		switch {
		case x >= 0 && y >= 0:
			return x - y
		case x >= 0:
			return -1
		case y >= 0:
			return 1
		}
		return strings.Compare(string(a.Name), string(b.Name))
	})
	return out
}

var missing = v1.ResourceList{
	v1.ResourceCPU:    *milli(scoredMilliCPU),
	v1.ResourceMemory: *bytes(scoredMemory),
}

// requestOf answers what a pod asks for, and the CPU and memory it is scored as.
func requestOf(p *v1.Pod) ([]Amount, [2]int64) {
	if list, ok := alone(p); ok {
		out, scored := amountsOf(list), [2]int64{scoredMilliCPU, scoredMemory}
		if q, ok := list[v1.ResourceCPU]; ok {
			scored[cpu] = q.MilliValue()
		}
		if q, ok := list[v1.ResourceMemory]; ok {
			scored[memory] = q.Value()
		}
		return out, scored
	}
	options := podresource.PodResourcesOptions{UseStatusResources: true, InPlacePodLevelResourcesVerticalScalingEnabled: true}
	request := podresource.PodRequests(p, options)
	scored := request
	if lacksRequests(p) {
		options.NonMissingContainerRequests = missing
		scored = podresource.PodRequests(p, options)
	}
	return amountsOf(request), [2]int64{scored.Cpu().MilliValue(), scored.Memory().Value()}
}

// alone answers the requests of the only container of a pod, when nothing else has a say in what the pod asks for. Most pods are such,
// and adding up lists of resources costs more than deciding.
func alone(p *v1.Pod) (v1.ResourceList, bool) {
	if len(p.Spec.Containers) != 1 || len(p.Spec.InitContainers) > 0 || p.Spec.Resources != nil || len(p.Spec.Overhead) > 0 ||
		p.Status.Resources != nil || p.Status.AllocatedResources != nil || podresource.IsPodResizeInfeasible(p) {
		return nil, false
	}
	list := p.Spec.Containers[0].Resources.Requests
	same := func(other v1.ResourceList) bool { return other == nil || sameAmounts(list, other) }
	for i := range p.Status.ContainerStatuses {
		s := &p.Status.ContainerStatuses[i]
		if !same(s.AllocatedResources) || s.Resources != nil && !same(s.Resources.Requests) {
			return nil, false
		}
	}
	return list, true
}

// lacksRequests says whether a container asks for no CPU or no memory.
func lacksRequests(p *v1.Pod) bool {
	for _, containers := range [][]v1.Container{p.Spec.Containers, p.Spec.InitContainers} {
		for i := range containers {
			_, cpu := containers[i].Resources.Requests[v1.ResourceCPU]
			_, memory := containers[i].Resources.Requests[v1.ResourceMemory]
			if !cpu || !memory {
				return true
			}
		}
	}
	return false
}

// Port is a port of the node that a pod holds. The address 0.0.0.0 holds it on every address.
type Port struct {
	Protocol v1.Protocol
	Address  string
	Number   int32
}

const everyAddress = "0.0.0.0"

func (p Port) conflicts(q Port) bool {
	return p.Number == q.Number && p.Protocol == q.Protocol && (p.Address == q.Address || p.Address == everyAddress || q.Address == everyAddress)
}

func portsOf(p *v1.Pod) []Port {
	var out []Port
	add := func(containers []v1.Container, sidecars bool) {
		for i := range containers {
			c := &containers[i]
			if sidecars && (c.RestartPolicy == nil || *c.RestartPolicy != v1.ContainerRestartPolicyAlways) {
				continue
			}
			for _, cp := range c.Ports {
				if cp.HostPort <= 0 {
					continue
				}
				port := Port{Protocol: cp.Protocol, Address: cp.HostIP, Number: cp.HostPort}
				if port.Protocol == "" {
					port.Protocol = v1.ProtocolTCP
				}
				if port.Address == "" {
					port.Address = everyAddress
				}
				out = append(out, port)
			}
		}
	}
	add(p.Spec.Containers, false)
	add(p.Spec.InitContainers, true)
	return out
}
