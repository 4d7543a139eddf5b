package kubelet

import (
	"net/netip"

	v1 "k8s.io/api/core/v1"
)

// hostPort is a place on the node that a pod takes for itself.
type hostPort struct {
	ip       string
	protocol v1.Protocol
	port     int32
}

// hostPorts are those of a pod; a sidecar holds its own as long as the pod lives.
func hostPorts(pod *v1.Pod) []hostPort {
	var out []hostPort
	take := func(c *v1.Container) {
		for _, p := range c.Ports {
			if p.HostPort == 0 {
				continue
			}
			h := hostPort{ip: p.HostIP, protocol: p.Protocol, port: p.HostPort}
			if h.protocol == "" {
				h.protocol = v1.ProtocolTCP
			}
			out = append(out, h)
		}
	}
	for i := range pod.Spec.InitContainers {
		if c := &pod.Spec.InitContainers[i]; c.RestartPolicy != nil && *c.RestartPolicy == v1.ContainerRestartPolicyAlways {
			take(c)
		}
	}
	for i := range pod.Spec.Containers {
		take(&pod.Spec.Containers[i])
	}
	return out
}

// clashes tells that two cannot be had at once: one address is the other, or is all of them.
func (h hostPort) clashes(other hostPort) bool {
	return h.port == other.port && h.protocol == other.protocol && (h.ip == other.ip || everywhere(h.ip) || everywhere(other.ip))
}

func everywhere(ip string) bool {
	a, err := netip.ParseAddr(ip)
	return err != nil || a.IsUnspecified()
}

// portTaken tells that a pod wants a port of the node which another holds.
func portTaken(pod *v1.Pod, active []*v1.Pod) bool {
	want := hostPorts(pod)
	if len(want) == 0 {
		return false
	}
	for _, p := range active {
		for _, has := range hostPorts(p) {
			for _, w := range want {
				if w.clashes(has) {
					return true
				}
			}
		}
	}
	return false
}
