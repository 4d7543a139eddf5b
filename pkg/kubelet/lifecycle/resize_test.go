package lifecycle

import (
	"testing"

	v1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func sizes(cpu, mem string) v1.ResourceRequirements {
	l := v1.ResourceList{v1.ResourceCPU: resource.MustParse(cpu), v1.ResourceMemory: resource.MustParse(mem)}
	return v1.ResourceRequirements{Requests: l, Limits: l.DeepCopy()}
}

func TestAllotted(t *testing.T) {
	side := v1.ContainerRestartPolicyAlways
	pod := &v1.Pod{Spec: v1.PodSpec{InitContainers: []v1.Container{{Name: "i", Resources: sizes("5", "5Mi")}, {Name: "s", RestartPolicy: &side, Resources: sizes("1", "1Mi")}},
		Containers: []v1.Container{{Name: "c", Resources: sizes("2", "2Mi")}}}}
	if allotted(pod, allot(pod)) != pod {
		t.Error("a pod which has what it asks for needs no copy")
	}
	got := allotted(pod, Allotment{"s": sizes("3", "3Mi"), "c": sizes("4", "4Mi")})
	if got.Spec.Containers[0].Resources.Limits.Cpu().Value() != 4 || got.Spec.InitContainers[1].Resources.Limits.Cpu().Value() != 3 || got.Spec.InitContainers[0].Resources.Limits.Cpu().Value() != 5 {
		t.Error(got.Spec)
	}
	if pod.Spec.Containers[0].Resources.Limits.Cpu().Value() != 2 {
		t.Error("the source's pod was changed")
	}
	// A kubelet which comes back finds in the status what was granted, and in the spec what is wanted.
	pod.Status.ContainerStatuses = []v1.ContainerStatus{{Name: "c", State: v1.ContainerState{Running: &v1.ContainerStateRunning{}}, AllocatedResources: sizes("1", "1Mi").Requests, Resources: func() *v1.ResourceRequirements { r := sizes("1", "1Mi"); return &r }()}}
	if g := granted(pod); !apiequality.Semantic.DeepEqual(g["c"], sizes("1", "1Mi")) || !apiequality.Semantic.DeepEqual(g["s"], sizes("1", "1Mi")) {
		t.Error(g)
	}
}

func TestActualSize(t *testing.T) {
	want := sizeOf(&runtimeapi.LinuxContainerResources{CpuShares: 204, CpuQuota: 20000, CpuPeriod: 100000, MemoryLimitInBytes: 2 << 20})
	if got := actual(sizes("200m", "2Mi"), want, want); !apiequality.Semantic.DeepEqual(got, sizes("200m", "2Mi")) {
		t.Error(got)
	}
	have := want
	have.shares, have.quota, have.memory = 102, 10000, 1<<20
	got := actual(sizes("200m", "2Mi"), have, want)
	if got.Requests.Cpu().String() != "100m" || got.Limits.Cpu().String() != "100m" || got.Limits.Memory().String() != "1Mi" || got.Requests.Memory().String() != "2Mi" {
		t.Error(got)
	}
	c := &v1.Container{ResizePolicy: []v1.ContainerResizePolicy{{ResourceName: v1.ResourceMemory, RestartPolicy: v1.RestartContainer}, {ResourceName: v1.ResourceCPU, RestartPolicy: v1.NotRequired}}}
	cpuOnly := want
	cpuOnly.quota, cpuOnly.shares = 1, 2
	if mustRestart(c, cpuOnly, want) || !mustRestart(c, have, want) {
		t.Error("only a change of memory restarts this container")
	}
}
