package kubelet

import (
	"testing"

	v1 "k8s.io/api/core/v1"
)

func TestPortsOfTheNodeAreTakenOnce(t *testing.T) {
	pod := func(sidecar bool, ports ...v1.ContainerPort) *v1.Pod {
		c := v1.Container{Ports: ports}
		if sidecar {
			always := v1.ContainerRestartPolicyAlways
			c.RestartPolicy = &always
			return &v1.Pod{Spec: v1.PodSpec{InitContainers: []v1.Container{c}}}
		}
		return &v1.Pod{Spec: v1.PodSpec{Containers: []v1.Container{c}}}
	}
	port := func(ip string, protocol v1.Protocol, n int32) v1.ContainerPort {
		return v1.ContainerPort{HostIP: ip, Protocol: protocol, HostPort: n, ContainerPort: 80}
	}
	for name, c := range map[string]struct {
		pod, other *v1.Pod
		taken      bool
	}{
		"the same":           {pod(false, port("", v1.ProtocolTCP, 80)), pod(false, port("", "", 80)), true},
		"another protocol":   {pod(false, port("", v1.ProtocolUDP, 80)), pod(false, port("", v1.ProtocolTCP, 80)), false},
		"another port":       {pod(false, port("", v1.ProtocolTCP, 81)), pod(false, port("", v1.ProtocolTCP, 80)), false},
		"another address":    {pod(false, port("127.0.0.1", v1.ProtocolTCP, 80)), pod(false, port("10.0.0.1", v1.ProtocolTCP, 80)), false},
		"every address":      {pod(false, port("127.0.0.1", v1.ProtocolTCP, 80)), pod(false, port("0.0.0.0", v1.ProtocolTCP, 80)), true},
		"every IPv6 address": {pod(false, port("::", v1.ProtocolTCP, 80)), pod(false, port("fd00::1", v1.ProtocolTCP, 80)), true},
		"a sidecar's":        {pod(false, port("", v1.ProtocolTCP, 80)), pod(true, port("", v1.ProtocolTCP, 80)), true},
		"no port of a node":  {pod(false, port("", v1.ProtocolTCP, 0)), pod(false, port("", v1.ProtocolTCP, 0)), false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := portTaken(c.pod, []*v1.Pod{c.other}); got != c.taken {
				t.Errorf("taken is %v, want %v", got, c.taken)
			}
		})
	}
}
