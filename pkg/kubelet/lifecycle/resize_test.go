package lifecycle

import (
	"log/slog"
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
	// So it does of one that waits to start again, when its new size waits too.
	pod.Status.ContainerStatuses[0].State = v1.ContainerState{Waiting: &v1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}}
	for status, want := range map[v1.ConditionStatus]v1.ResourceRequirements{v1.ConditionTrue: sizes("1", "1Mi"), v1.ConditionFalse: sizes("2", "2Mi")} {
		pod.Status.Conditions = []v1.PodCondition{{Type: v1.PodResizePending, Status: status}}
		if g := granted(pod); !apiequality.Semantic.DeepEqual(g["c"], want) {
			t.Error(status, g)
		}
	}
}

// TestOwnSizeGranted: what a pod was given of a size of its own is in its status; one it only asked for it does not have.
func TestOwnSizeGranted(t *testing.T) {
	own, waits := sizes("2", "2Mi"), []v1.PodCondition{{Type: v1.PodResizePending, Status: v1.ConditionTrue}}
	small := sizes("1", "1Mi")
	for _, c := range []struct {
		name   string
		status v1.PodStatus
		want   v1.ResourceRequirements
	}{
		{"a new pod", v1.PodStatus{}, own},
		{"deferred", v1.PodStatus{Resources: &small, AllocatedResources: small.Requests, Conditions: waits}, small},
		{"had none", v1.PodStatus{Conditions: waits}, v1.ResourceRequirements{}},
		{"under way", v1.PodStatus{Resources: &small, AllocatedResources: own.Requests}, v1.ResourceRequirements{Requests: own.Requests, Limits: small.Limits}},
	} {
		pod := &v1.Pod{Spec: v1.PodSpec{Resources: &own}, Status: c.status}
		g := granted(pod)
		if !apiequality.Semantic.DeepEqual(g[""], c.want) {
			t.Errorf("%s: %+v", c.name, g[""])
		}
		has := allotted(pod, g).Spec.Resources
		if has == nil {
			has = &v1.ResourceRequirements{}
		}
		if !apiequality.Semantic.DeepEqual(*has, c.want) || pod.Spec.Resources != &own {
			t.Errorf("%s: the pod has %+v", c.name, has)
		}
	}
}

// TestEndsWhatWasBegun: a kubelet that finds a change under way carries it to its end.
func TestEndsWhatWasBegun(t *testing.T) {
	own, small := sizes("2", "2Mi"), sizes("1", "1Mi")
	pod := &v1.Pod{Spec: v1.PodSpec{Resources: &own}, Status: v1.PodStatus{Phase: v1.PodRunning, Resources: &small, AllocatedResources: own.Requests,
		Conditions: []v1.PodCondition{{Type: v1.PodResizeInProgress, Status: v1.ConditionTrue}}}}
	m := New(Config{Log: slog.New(slog.DiscardHandler)})
	if w := newWorker(m, pod, true); !w.resizing || w.progress == nil || !apiequality.Semantic.DeepEqual(w.size, small) {
		t.Error(w.resizing, w.progress, w.size)
	}
	pod.Status.Conditions = nil
	if w := newWorker(m, pod, true); w.resizing || w.progress != nil {
		t.Error("nothing was under way")
	}
}

// placed is a node that gives everybody any CPU.
type placed struct{ Resources }

func (placed) Place(*v1.Pod, *v1.Container, *runtimeapi.LinuxContainerResources) {}

// TestTakenOver: a container without a limit has its pod's, and its status does not tell of it as its own.
func TestTakenOver(t *testing.T) {
	own := sizes("500m", "64Mi")
	pod := &v1.Pod{Spec: v1.PodSpec{Resources: &own, Containers: []v1.Container{{Name: "bare"}, {Name: "c", Resources: sizes("100m", "16Mi")}}}}
	w := newWorker(New(Config{Log: slog.New(slog.DiscardHandler), Resolver: Resolver{CFSPeriod: 100000}, Resources: placed{}, Allocatable: func() v1.ResourceList { return nil }}), pod, true)
	bare, c := sizeOf(w.resources(pod, &pod.Spec.Containers[0])), sizeOf(w.resources(pod, &pod.Spec.Containers[1]))
	if want := (sized{shares: 512, quota: 50000, period: 100000, memory: 64 << 20}); bare != want {
		t.Errorf("%+v", bare)
	}
	if want := (sized{shares: 102, quota: 10000, period: 100000, memory: 16 << 20}); c != want {
		t.Errorf("%+v", c)
	}
	if got := actual(v1.ResourceRequirements{}, c, bare); len(got.Requests)+len(got.Limits) > 0 {
		t.Error(got)
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
