package lifecycle

import (
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
)

// TestLastStateOutlivesTheRuntime: a container that waited for its image while all were made to start anew, and so was forgotten,
// still tells how it ended last, before it starts and after.
func TestLastStateOutlivesTheRuntime(t *testing.T) {
	now := time.Unix(1000, 0)
	code := []v1.ContainerRestartRule{{Action: v1.ContainerRestartRuleActionRestartAllContainers,
		ExitCodes: &v1.ContainerRestartRuleOnExitCodes{Operator: v1.ContainerRestartRuleOnExitCodesOpIn, Values: []int32{7}}}}
	pod := &v1.Pod{Spec: v1.PodSpec{RestartPolicy: v1.RestartPolicyAlways, Containers: []v1.Container{{Name: "pulls"}, {Name: "culprit", RestartPolicyRules: code}}}}
	sandbox := []Sandbox{{ID: "s", Ready: true, IPs: []string{"10.0.0.1"}}}
	box := func(cs ...Container) Observed {
		o := Observed{Sandboxes: sandbox, Containers: map[string][]Container{}}
		for _, c := range cs {
			c.SandboxID = "s"
			o.Containers[c.Name] = []Container{c}
		}
		return o
	}
	ended := func(name string, code int32) Container {
		return Container{ID: name + "1", Name: name, State: Exited, ExitCode: code, Restarts: 2, Finished: now.Add(-time.Second)}
	}
	running := func(name string, restarts int) Container {
		return Container{ID: name + "2", Name: name, State: Running, Restarts: restarts, Created: now, Started: now}
	}
	pulling := map[string]v1.ContainerStateWaiting{"pulls": {Reason: "ImagePullBackOff"}}
	st := v1.PodStatus{Phase: v1.PodRunning}
	for _, step := range []struct {
		what    string
		o       Observed
		waiting map[string]v1.ContainerStateWaiting
		count   int32
	}{
		{"it waits for its image", box(ended("pulls", 3), running("culprit", 0)), pulling, 2},
		{"all are made to start anew", box(ended("pulls", 3), ended("culprit", 7)), pulling, 2},
		{"the runtime has forgotten it", box(), pulling, 2},
		{"the other has started", box(running("culprit", 3)), pulling, 2},
		{"it has started", box(running("pulls", 3), running("culprit", 3)), nil, 3},
		{"it runs", box(running("pulls", 3), running("culprit", 3)), nil, 3},
	} {
		st = podStatus(View{Snapshot: Snapshot{Pod: pod, Observed: step.o, Now: now, Restarting: restartBegun(st)}, Waiting: step.waiting}, st)
		cs := st.ContainerStatuses[0]
		if last := cs.LastTerminationState.Terminated; last == nil || last.ExitCode != 3 || cs.RestartCount != step.count {
			t.Errorf("%s: %+v", step.what, cs)
		}
	}
}
