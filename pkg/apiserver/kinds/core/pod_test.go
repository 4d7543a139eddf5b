package core

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
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
