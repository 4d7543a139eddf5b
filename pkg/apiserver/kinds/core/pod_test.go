package core

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	podresource "k8s.io/component-helpers/resource"
	"k8s.io/utils/ptr"
	"pgregory.net/rapid"

	"github.com/sextant-k8s/sextant/staging/api/defaults"
)

// TestPodGrace asks how long pods have to end.
func TestPodGrace(t *testing.T) {
	sec := func(n int64) *int64 { return &n }
	for _, c := range []struct {
		node        string
		phase       corev1.PodPhase
		spec, asked *int64
		want        int64
	}{
		{"n", corev1.PodRunning, sec(30), nil, 30},
		{"n", corev1.PodRunning, sec(30), sec(5), 5},
		{"n", corev1.PodPending, sec(30), sec(60), 60},
		{"n", corev1.PodRunning, sec(0), nil, 0},
		{"n", corev1.PodRunning, sec(30), sec(0), 0},
		{"n", corev1.PodRunning, sec(-7), nil, 1},
		{"n", corev1.PodRunning, sec(30), sec(-1), 1},
		{"n", corev1.PodRunning, nil, nil, 0},
		{"", corev1.PodPending, sec(30), nil, 0},
		{"", corev1.PodPending, sec(30), sec(60), 0},
		{"n", corev1.PodFailed, sec(30), nil, 0},
		{"n", corev1.PodSucceeded, sec(30), sec(60), 0},
	} {
		p := &corev1.Pod{Spec: corev1.PodSpec{NodeName: c.node, TerminationGracePeriodSeconds: c.spec}, Status: corev1.PodStatus{Phase: c.phase}}
		if got := podGrace(p, c.asked); got != c.want {
			t.Errorf("%+v: %d", c, got)
		}
	}
}

// TestRestartsToldOfAPod: once a pod is initialized, its sidecars' restarts count, those of an init container that ended do not.
func TestRestartsToldOfAPod(t *testing.T) {
	again, always := corev1.ContainerRestartPolicyOnFailure, corev1.ContainerRestartPolicyAlways
	p := &corev1.Pod{
		Spec: corev1.PodSpec{InitContainers: []corev1.Container{{Name: "ended", RestartPolicy: &again}, {Name: "beside", RestartPolicy: &always}}, Containers: []corev1.Container{{Name: "c"}}},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, InitContainerStatuses: []corev1.ContainerStatus{
			{Name: "ended", RestartCount: 100, State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{}}},
			{Name: "beside", RestartCount: 10, Ready: true, Started: ptr.To(true), State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}},
		}, ContainerStatuses: []corev1.ContainerStatus{{Name: "c", RestartCount: 1, Ready: true, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}}},
	}
	if s := summarize(p); s.restarts != 11 || s.ready != 2 || s.total != 2 {
		t.Errorf("%d restarts, %d of %d ready; want 11, 2 of 2", s.restarts, s.ready, s.total)
	}
}

// TestTogether: what the containers of a pod request together is what the library that schedulers count with says.
func TestTogether(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		always := corev1.ContainerRestartPolicyAlways
		draw := func(name string, inits bool) []corev1.Container {
			list := make([]corev1.Container, rapid.IntRange(0, 4).Draw(r, name))
			for i := range list {
				list[i].Resources.Requests = corev1.ResourceList{}
				for _, n := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
					if q := rapid.Int64Range(0, 5).Draw(r, "amount"); q > 0 {
						list[i].Resources.Requests[n] = *resource.NewQuantity(q, resource.DecimalSI)
					}
				}
				if inits && rapid.Bool().Draw(r, "sidecar") {
					list[i].RestartPolicy = &always
				}
			}
			return list
		}
		p := &corev1.Pod{Spec: corev1.PodSpec{InitContainers: draw("inits", true), Containers: draw("containers", false)}}
		if got, want := defaults.Together(&p.Spec), podresource.AggregateContainerRequests(p, podresource.PodResourcesOptions{}); !equality.Semantic.DeepEqual(got, want) {
			r.Fatalf("%v, want %v", got, want)
		}
	})
}

// TestPrepareResize: of a resize only sizes are taken, the pod's own among them, and containers in another order come as they are.
func TestPrepareResize(t *testing.T) {
	size := func(cpu string) corev1.ResourceRequirements {
		return corev1.ResourceRequirements{Limits: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu)}}
	}
	one, two := size("1"), size("2")
	old := &corev1.Pod{Spec: corev1.PodSpec{NodeName: "n", Resources: &one, Containers: []corev1.Container{{Name: "a", Image: "x"}, {Name: "b", Image: "x"}}}}
	p := old.DeepCopy()
	p.Spec.NodeName, p.Spec.Resources, p.Spec.Containers[0].Image, p.Spec.Containers[0].Resources = "m", &two, "y", one
	prepareResize(nil, p, old)
	want := old.DeepCopy()
	want.Spec.Resources, want.Spec.Containers[0].Resources = &two, one
	if !equality.Semantic.DeepEqual(p, want) {
		t.Errorf("%+v", p.Spec)
	}
	p.Spec.Containers[0], p.Spec.Containers[1] = p.Spec.Containers[1], p.Spec.Containers[0]
	prepareResize(nil, p, old)
	if p.Spec.Containers[0].Name != "b" {
		t.Error("nobody will see that the order has changed")
	}
}
