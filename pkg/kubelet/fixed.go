package kubelet

import (
	"fmt"
	"slices"

	v1 "k8s.io/api/core/v1"

	"github.com/sextant-k8s/sextant/pkg/kubelet/lifecycle"
)

// fixed tells why a pod's new size cannot be given to it while it runs: CPUs of its own and memory bound to places are dealt out
// before a container starts. was is the pod as it stands. Containers that have neither, and ask for neither, change freely.
func (m *managers) fixed(pod, was *v1.Pod) *lifecycle.Failure {
	refuse := func(manager, policy string) *lifecycle.Failure {
		return &lifecycle.Failure{Reason: v1.PodReasonInfeasible, Message: fmt.Sprintf("Resize is infeasible for Guaranteed Pods alongside %s policy %q", manager, policy)}
	}
	before := map[string]v1.ResourceList{}
	for _, c := range slices.Concat(was.Spec.InitContainers, was.Spec.Containers) {
		before[c.Name] = c.Resources.Requests
	}
	for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		now, then := c.Resources.Requests, before[c.Name]
		_, alone := m.cpus.Of(string(pod.UID), c.Name)
		switch {
		case !now.Cpu().Equal(*then.Cpu()) && (alone || m.cpus.Whole(pod, &c) > 0):
			return refuse("CPU Manager", m.k.cfg.Kubelet.CPUManagerPolicy)
		case !now.Memory().Equal(*then.Memory()) && len(m.memory.Of(string(pod.UID), c.Name)) > 0:
			return refuse("Memory Manager", m.k.cfg.Kubelet.MemoryManagerPolicy)
		}
	}
	return nil
}
