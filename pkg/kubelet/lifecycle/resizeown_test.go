package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"google.golang.org/grpc"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/record"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sextant-k8s/sextant/pkg/kubelet/cri"
)

// scales are a runtime and the cgroups of pods, which write down whose size is set, and when.
type scales struct {
	runtimeapi.RuntimeServiceClient
	Cgroups
	did  []string
	full bool
}

func (s *scales) UpdateContainerResources(_ context.Context, r *runtimeapi.UpdateContainerResourcesRequest, _ ...grpc.CallOption) (*runtimeapi.UpdateContainerResourcesResponse, error) {
	s.did = append(s.did, fmt.Sprintf("%s %d", r.ContainerId, r.Linux.CpuQuota/100))
	return &runtimeapi.UpdateContainerResourcesResponse{}, nil
}

func (s *scales) Resize(pod *v1.Pod, grow bool) error {
	way := "take"
	if grow {
		way = "give"
	}
	s.did = append(s.did, way+" "+pod.Spec.Resources.Limits.Cpu().String())
	if s.full && !grow {
		return errors.New("device or resource busy")
	}
	return nil
}

// TestInitSizeChanges: an init container changes while it runs, and one that has ended does not.
func TestInitSizeChanges(t *testing.T) {
	world := &scales{}
	m := New(Config{CRI: &cri.Client{RuntimeServiceClient: world}, Cgroups: world, Log: slog.New(slog.DiscardHandler), Recorder: record.NewFakeRecorder(100),
		Resolver: Resolver{CFSPeriod: 100000}, Resources: placed{}, Allocatable: func() v1.ResourceList { return nil },
		Room: func(*v1.Pod, []*v1.Pod) *Failure { return nil }})
	own, small := sizes("3", "1Gi"), sizes("1", "1Mi")
	pod := &v1.Pod{Spec: v1.PodSpec{Resources: &own, InitContainers: []v1.Container{{Name: "ended", Resources: small}, {Name: "runs", Resources: small}}, Containers: []v1.Container{{Name: "c", Resources: small}}}}
	w := newWorker(m, pod, true)
	w.admitted = true
	was := w.resources(pod, &pod.Spec.InitContainers[0])
	w.observed = Observed{Containers: map[string][]Container{"ended": {{ID: "ended", Name: "ended", State: Exited, Resources: was}}, "runs": {{ID: "runs", Name: "runs", State: Running, Resources: was}}}}
	p := pod.DeepCopy()
	p.Spec.InitContainers[0].Resources, p.Spec.InitContainers[1].Resources = sizes("2", "1Mi"), sizes("2", "1Mi")
	w.update(p)
	w.grant()
	w.resize(t.Context())
	if got := strings.Join(world.did, ", "); got != "give 3, runs 2000, take 3" || w.resizing || w.pod != p {
		t.Errorf("did %q", got)
	}
}

// TestOwnSizeChanges: a pod is given room before its containers grow, gives it back after they shrank, and is told to have what has
// been carried out. What waits for room, or for a restart, is told so.
func TestOwnSizeChanges(t *testing.T) {
	world := &scales{}
	var room *Failure
	m := New(Config{CRI: &cri.Client{RuntimeServiceClient: world}, Cgroups: world, Log: slog.New(slog.DiscardHandler), Recorder: record.NewFakeRecorder(100),
		Resolver: Resolver{CFSPeriod: 100000}, Resources: placed{}, Allocatable: func() v1.ResourceList { return nil },
		Room: func(*v1.Pod, []*v1.Pod) *Failure { return room }})
	first, part := sizes("1", "1Gi"), sizes("500m", "1Mi")
	pod := &v1.Pod{Spec: v1.PodSpec{Resources: &first, Containers: []v1.Container{{Name: "bare"}, {Name: "own", Resources: part},
		{Name: "again", ResizePolicy: []v1.ContainerResizePolicy{{ResourceName: v1.ResourceMemory, RestartPolicy: v1.RestartContainer}}}}}}
	w := newWorker(m, pod, true)
	w.admitted = true
	w.observed = Observed{Containers: map[string][]Container{}}
	for _, c := range pod.Spec.Containers {
		w.observed.Containers[c.Name] = []Container{{ID: c.Name, Name: c.Name, State: Running, Resources: w.resources(pod, &c)}}
	}
	status := func() string {
		w.mu.Lock()
		defer w.mu.Unlock()
		v := View{Snapshot: w.snapshotLocked(), ResizePending: w.pending, Resizing: w.progress, Size: w.size}
		st := podStatus(v, v1.PodStatus{})
		out := fmt.Sprintf("%s of %s", st.Resources.Limits.Cpu(), st.AllocatedResources.Cpu())
		for _, c := range st.Conditions {
			if strings.HasPrefix(string(c.Type), "PodResize") {
				out += " " + strings.TrimSpace(string(c.Type)+" "+c.Reason)
			}
		}
		return out
	}
	step := func(what, cpu, memory, did, is string) {
		t.Helper()
		if cpu != "" {
			p := pod.DeepCopy()
			size := sizes(cpu, memory)
			p.Spec.Resources = &size
			w.update(p)
		}
		world.did = nil
		w.grant()
		w.resize(t.Context())
		if got := strings.Join(world.did, ", "); got != did {
			t.Errorf("%s: did %q, want %q", what, got, did)
		}
		if got := status(); got != is {
			t.Errorf("%s: is %q, want %q", what, got, is)
		}
	}
	step("nothing to do", "", "", "", "1 of 1")
	step("grows", "2", "1Gi", "give 2, bare 2000, again 2000, take 2", "2 of 2")
	step("shrinks", "1", "1Gi", "give 1, bare 1000, again 1000, take 1", "1 of 1")
	room = &Failure{Reason: v1.PodReasonDeferred}
	step("waits", "3", "1Gi", "", "1 of 1 PodResizePending Deferred")
	room, world.full = nil, true
	step("is in the way", "500m", "1Gi", "give 500m, bare 500, again 500, take 500m", "1 of 500m PodResizeInProgress Error")
	world.full = false
	step("is tried again", "", "", "give 500m, take 500m", "500m of 500m")
	step("wants a restart", "500m", "2Gi", "give 500m, bare 500", "500m of 500m PodResizeInProgress")
	if len(w.restart) != 1 || !w.restart["again"] {
		t.Error("to be restarted: ", w.restart)
	}
	if got := w.size.Limits.Memory().String(); got != "1Gi" {
		t.Error("it has", got)
	}
	delete(w.observed.Containers, "again") // which starts with what it is to have
	step("has restarted", "", "", "give 500m, take 500m", "500m of 500m")
	if got := w.size.Limits.Memory().String(); got != "2Gi" {
		t.Error("it has", got)
	}
}

// TestResizeText: events tell the sizes of containers, and of a pod that has its own.
func TestResizeText(t *testing.T) {
	cpu := func(n string) v1.ResourceRequirements {
		return v1.ResourceRequirements{Limits: v1.ResourceList{v1.ResourceCPU: resource.MustParse(n)}}
	}
	pod := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Generation: 2}, Spec: v1.PodSpec{Containers: []v1.Container{{Name: "c", Resources: cpu("1")}}}}
	if got := resizeText("started", pod); got != `Pod resize started: {"containers":[{"name":"c","resources":{"limits":{"cpu":"1"}}}],"generation":2}` {
		t.Error(got)
	}
	own := cpu("2")
	pod.Spec.Resources = &own
	if got := resizeText("completed", pod); got != `Pod resize completed: {"containers":[{"name":"c","resources":{"limits":{"cpu":"1"}}}],"resources":{"limits":{"cpu":"2"}},"generation":2}` {
		t.Error(got)
	}
}
