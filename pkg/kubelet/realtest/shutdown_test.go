package realtest

import (
	"context"
	"fmt"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"

	"github.com/sextant-k8s/sextant/pkg/kubelet"
	"github.com/sextant-k8s/sextant/pkg/kubelet/shutdown/fakelogind"
)

// TestNodeShutdown has the machine go down, and then stay after all.
func TestNodeShutdown(t *testing.T) {
	s := newSpace(t)
	bus, err := fakelogind.New(t.TempDir(), time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = bus.Close() }()
	restart := func(change func(*kubelet.Config)) {
		t.Helper()
		if err := node.stopKubelet(); err != nil {
			t.Fatal(err)
		}
		if err := node.startKubelet(change); err != nil {
			t.Fatal(err)
		}
	}
	restart(func(c *kubelet.Config) {
		c.Kubelet.ShutdownGracePeriodByPodPriority = []kubeletv1beta1.ShutdownGracePeriodByPodPriority{{Priority: 0, ShutdownGracePeriodSeconds: 10}, {Priority: 1000, ShutdownGracePeriodSeconds: 20}}
		c.SystemBus, c.LogindDropins = bus.Dial, bus.Dropins
	})
	defer restart(nil)
	spec := func(more string) string {
		return fmt.Sprintf(`{terminationGracePeriodSeconds: 60, %s containers: [{name: c, command: [sh, -c, "trap 'sleep 1; exit 0' TERM; sleep 600 & wait"]}]}`, more)
	}
	class := s.name + "-high"
	if _, err := node.admin.SchedulingV1().PriorityClasses().Create(context.Background(), &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: class}, Value: 1000}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = node.admin.SchedulingV1().PriorityClasses().Delete(context.Background(), class, metav1.DeleteOptions{})
	}()
	s.create("low", spec(""))
	s.create("high", spec("priorityClassName: "+class+","))
	s.create("done", `{restartPolicy: Never, containers: [{name: c, command: ["true"]}]}`)
	s.running("low")
	s.running("high")
	s.ended("done", v1.PodSucceeded)
	if err := within(patience, func() error {
		if bus.Locks() == 0 || bus.Delay() != 30*time.Second {
			return fmt.Errorf("%d locks, logind waits %s", bus.Locks(), bus.Delay())
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	bus.Announce(true)
	isReady := func(status v1.ConditionStatus, message string) {
		t.Helper()
		if err := within(patience, func() error {
			n, err := node.admin.CoreV1().Nodes().Get(context.Background(), nodeName, metav1.GetOptions{})
			if err != nil {
				return err
			}
			for _, c := range n.Status.Conditions {
				if c.Type == v1.NodeReady && (c.Status != status || c.Message != message) {
					return fmt.Errorf("ready is %s: %s", c.Status, c.Message)
				}
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
	}
	isReady(v1.ConditionFalse, "node is shutting down")
	s.create("late", spec(""))
	for _, name := range []string{"low", "high"} {
		p := s.ended(name, v1.PodFailed)
		if p.Status.Reason != "Terminated" || p.Status.Message != "Pod was terminated in response to imminent node shutdown." || condition(p, v1.DisruptionTarget) != v1.ConditionTrue {
			t.Errorf("%s: %+v", name, p.Status)
		}
		if st := container(p, "c").State.Terminated; st == nil || st.ExitCode != 0 {
			t.Errorf("%s had no time to end: %+v", name, st)
		}
	}
	low, high := container(s.get("low"), "c").State.Terminated, container(s.get("high"), "c").State.Terminated
	if low != nil && high != nil && high.FinishedAt.Before(&low.FinishedAt) {
		t.Errorf("low ended at %s, high before that, at %s", low.FinishedAt, high.FinishedAt)
	}
	if p := s.ended("late", v1.PodFailed); p.Status.Reason != "NodeShutdown" || p.Status.Message != "Pod was rejected: Pod was rejected as the node is shutting down." {
		t.Errorf("late: %+v", p.Status)
	}
	if p := s.get("done"); p.Status.Phase != v1.PodSucceeded {
		t.Errorf("done: %+v", p.Status)
	}
	select {
	case <-bus.Released:
	case <-time.After(patience):
		t.Error("the machine waits on")
	}
	bus.Announce(false)
	isReady(v1.ConditionTrue, "kubelet is posting ready status")
	s.create("after", `{restartPolicy: Never, containers: [{name: c, command: ["true"]}]}`)
	s.ended("after", v1.PodSucceeded)
}
