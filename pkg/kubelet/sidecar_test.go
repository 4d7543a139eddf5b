package kubelet

import (
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// TestSidecarsAddUp: of the init containers only those that run beside the main ones count with them; one that merely says how
// often it may fail is through before.
func TestSidecarsAddUp(t *testing.T) {
	one := v1.ResourceRequirements{Requests: v1.ResourceList{v1.ResourceCPU: resource.MustParse("1")}, Limits: v1.ResourceList{v1.ResourceCPU: resource.MustParse("1")}}
	for policy, want := range map[v1.ContainerRestartPolicy]int64{"": 1000, v1.ContainerRestartPolicyNever: 1000, v1.ContainerRestartPolicyOnFailure: 1000,
		v1.ContainerRestartPolicyAlways: 2000} {
		init := v1.Container{Name: "i", Resources: one}
		if policy != "" {
			init.RestartPolicy = &policy
		}
		pod := &v1.Pod{Spec: v1.PodSpec{InitContainers: []v1.Container{init}, Containers: []v1.Container{{Name: "c", Resources: one}}}}
		if got := request(pod, v1.ResourceCPU); got != want {
			t.Errorf("%q: requests %dm, want %dm", policy, got, want)
		}
		if got := podLimits(pod).quota; got != want*100 {
			t.Errorf("%q: quota %d, want %d", policy, got, want*100)
		}
	}
}
