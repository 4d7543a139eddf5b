package realtest

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sextant-k8s/sextant/pkg/kubelet/cri"
)

// sandboxOf is the ID of a pod's only sandbox.
func sandboxOf(t *testing.T, uid string) string {
	t.Helper()
	client, err := cri.Dial("unix://"+node.path("run/containerd.sock"), "")
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close() //nolint:errcheck // it was only asked
	list, err := client.ListPodSandbox(context.Background(), &runtimeapi.ListPodSandboxRequest{Filter: &runtimeapi.PodSandboxFilter{LabelSelector: map[string]string{cri.LabelPodUID: uid}}})
	if err != nil || len(list.Items) != 1 {
		t.Fatal("not one sandbox: ", list, err)
	}
	return list.Items[0].Id
}

// TestDeclaredFeatures: schedulers and apiservers read there what not every node can do.
func TestDeclaredFeatures(t *testing.T) {
	n, err := node.admin.CoreV1().Nodes().Get(context.Background(), nodeName, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"ExtendWebSocketsToKubelet", "InPlacePodLevelResourcesVerticalScaling", "InPlacePodVerticalScalingInitContainers", "RestartAllContainersOnContainerExits"}
	if got := n.Status.DeclaredFeatures; !slices.Equal(got, want) {
		t.Errorf("%v is declared, want %v", got, want)
	}
}

// TestRestartAll: one container's end starts all of them anew, in the same sandbox and on the same volumes, without hooks or grace;
// the second time it has to wait, and the kubelet ends meanwhile.
func TestRestartAll(t *testing.T) {
	s := newSpace(t)
	s.create("p", `
restartPolicy: Never
terminationGracePeriodSeconds: 60
volumes: [{name: v, emptyDir: {}}]
initContainers:
- {name: i, command: [sh, -c, "echo i >> /v/log"], volumeMounts: [{name: v, mountPath: /v}]}
- name: s
  command: [sh, -c, "echo s >> /v/log; until [ -e /v/fire ]; do sleep 0.2; done; rm /v/fire; sleep 1; exit 88"]
  restartPolicy: Always
  restartPolicyRules: [{action: RestartAllContainers, exitCodes: {operator: In, values: [88]}}]
  startupProbe: {exec: {command: [grep, s, /v/log]}, periodSeconds: 1}
  volumeMounts: [{name: v, mountPath: /v}]
containers:
- name: c
  command: [sh, -c, "trap '' TERM; echo c >> /v/log; sleep 600"]
  lifecycle: {preStop: {exec: {command: [touch, /v/hook]}}}
  volumeMounts: [{name: v, mountPath: /v}]
- {name: done, command: ["true"]}
`)
	names := []string{"i", "s", "c", "done"}
	again := func(n int32) func(*v1.Pod) bool {
		return func(p *v1.Pod) bool {
			return container(p, "c").State.Running != nil && container(p, "s").State.Running != nil && container(p, "done").State.Terminated != nil &&
				!slices.ContainsFunc(names, func(name string) bool { return container(p, name).RestartCount != n })
		}
	}
	old := s.until("p", "through its first start", again(0))
	if condition(old, v1.AllContainersRestarting) != v1.ConditionFalse {
		t.Errorf("conditions before: %+v", old.Status.Conditions)
	}
	sandbox := sandboxOf(t, string(old.UID))
	fire := func() {
		t.Helper()
		if _, err := s.exec("p", "c", "touch", "/v/fire"); err != nil {
			t.Fatal(err)
		}
	}
	restarting := func(p *v1.Pod) bool { return condition(p, v1.AllContainersRestarting) == v1.ConditionTrue }

	begun := time.Now()
	fire()
	if p := s.until("p", "restarting all", restarting); p.Status.Phase != v1.PodRunning || condition(p, v1.PodInitialized) != v1.ConditionTrue {
		t.Errorf("while it restarts it is %s with %+v", p.Status.Phase, p.Status.Conditions)
	}
	p := s.until("p", "restarted whole", again(1))
	if took := time.Since(begun); took > 20*time.Second {
		t.Errorf("it took %s", took)
	}
	if restarting(p) || p.UID != old.UID || p.Status.PodIP != old.Status.PodIP || sandboxOf(t, string(p.UID)) != sandbox {
		t.Errorf("not the same pod any more: %+v", p.Status)
	}
	for _, name := range names {
		if last := container(p, name).LastTerminationState.Terminated; last == nil || last.ExitCode != 137 || last.Reason != "RestartingAllContainers" {
			t.Errorf("%s: last state %+v", name, last)
		}
	}
	s.shows("p", "i\ns\nc\ni\ns\nc", "cat", "/v/log")
	if out, err := s.exec("p", "c", "ls", "/v/hook"); err == nil {
		t.Error("the preStop hook ran:", out)
	}
	if out := s.logs("p", &v1.PodLogOptions{Container: "c", Previous: true}); strings.HasPrefix(out, "error") {
		t.Error("the log of the run before:", out)
	}

	fire()
	s.until("p", "waiting to restart all", func(p *v1.Pod) bool {
		w := container(p, "s").State.Waiting
		return restarting(p) && w != nil && w.Reason == "CrashLoopBackOff" && container(p, "c").State.Terminated != nil
	})
	if err := node.stopKubelet(); err != nil {
		t.Fatal(err)
	}
	if err := node.startKubelet(nil); err != nil {
		t.Fatal(err)
	}
	p = s.until("p", "restarted twice", again(2))
	if restarting(p) || p.Status.PodIP != old.Status.PodIP || sandboxOf(t, string(p.UID)) != sandbox {
		t.Errorf("not the same pod any more: %+v", p.Status)
	}
	s.shows("p", "i\ns\nc\ni\ns\nc\ni\ns\nc", "cat", "/v/log")
	soon := int64(1)
	if err := node.admin.CoreV1().Pods(s.name).Delete(context.Background(), "p", metav1.DeleteOptions{GracePeriodSeconds: &soon}); err != nil {
		t.Error(err)
	}
}
