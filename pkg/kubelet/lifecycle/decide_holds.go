package lifecycle

import (
	"slices"

	v1 "k8s.io/api/core/v1"
)

// holds tells that a pod may have of the node what one alone can have: a port, a claim or its volume, a device, huge pages, CPUs of
// its own. Who waits for that comes as soon as the pod is told to have ended, which must not be before the sandbox has stopped.
func holds(pod *v1.Pod) bool {
	if QOS(pod) == v1.PodQOSGuaranteed || len(pod.Spec.ResourceClaims) > 0 {
		return true
	}
	for _, v := range pod.Spec.Volumes {
		if v.PersistentVolumeClaim != nil || v.Ephemeral != nil {
			return true
		}
	}
	alone := func(c v1.Container) bool {
		if slices.ContainsFunc(c.Ports, func(p v1.ContainerPort) bool { return p.HostPort != 0 }) {
			return true
		}
		for name := range c.Resources.Limits {
			switch name {
			case v1.ResourceCPU, v1.ResourceMemory, v1.ResourceEphemeralStorage:
			default:
				return true
			}
		}
		return false
	}
	return slices.ContainsFunc(pod.Spec.InitContainers, alone) || slices.ContainsFunc(pod.Spec.Containers, alone)
}
