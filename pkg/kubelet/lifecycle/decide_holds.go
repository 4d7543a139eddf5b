package lifecycle

import (
	"slices"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// holds tells that a pod may have of the node what one alone can have: a port, a claim or its volume, a device, huge pages, CPUs of
// its own; or a name that comes again, as a StatefulSet's, by which a network may know it. Who waits for that comes as soon as the pod
// is told to have ended, which must not be before the sandbox has stopped.
func holds(pod *v1.Pod) bool {
	if QOS(pod) == v1.PodQOSGuaranteed || len(pod.Spec.ResourceClaims) > 0 {
		return true
	}
	if of := metav1.GetControllerOf(pod); of != nil && of.Kind == "StatefulSet" {
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
		return scarce(c.Resources.Limits)
	}
	if own := pod.Spec.Resources; own != nil && scarce(own.Limits) {
		return true
	}
	return slices.ContainsFunc(pod.Spec.InitContainers, alone) || slices.ContainsFunc(pod.Spec.Containers, alone)
}

// scarce tells of limits on more than what is shared by all.
func scarce(limits v1.ResourceList) bool {
	for name := range limits {
		switch name {
		case v1.ResourceCPU, v1.ResourceMemory, v1.ResourceEphemeralStorage:
		default:
			return true
		}
	}
	return false
}
