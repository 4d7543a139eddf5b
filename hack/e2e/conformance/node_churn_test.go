//go:build e2e

package conformance

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
)

var nodeChurn = []behaviour{
	{name: "Pod Container Status should never report success for a pending container", test: churnNeverSucceeds},
	{name: "Pod Container Status should never report container start when an init container fails", test: churnNeverStarts},
	{name: "Events should be sent by kubelets and the scheduler about pods scheduling and running", test: podEvents},
	{name: "PreStop should call prestop when killing a pod, and graceful pod terminated should wait until preStop hook completes the process", test: preStopWaits},
	{name: "Service endpoints latency should not be very high", test: endpointsLatency},
}

// churned creates pods and deletes them at once or a little later, and hands every state that was seen of them to a check.
func (w *world) churned(build func(i int) *corev1.Pod, check func(p *corev1.Pod) error) {
	w.Helper()
	follow := must(api.CoreV1().Pods(w.ns).Watch(ctx, metav1.ListOptions{}))
	defer follow.Stop()
	const n = 12
	var wg sync.WaitGroup
	errs := make(chan error, n)
	for i := range n {
		p := build(i)
		wg.Add(1)
		go func() {
			defer wg.Done()
			if _, err := api.CoreV1().Pods(w.ns).Create(ctx, p, metav1.CreateOptions{}); err != nil {
				errs <- err
				return
			}
			time.Sleep(time.Duration(i) * 150 * time.Millisecond)
			if err := api.CoreV1().Pods(w.ns).Delete(ctx, p.Name, *metav1.NewDeleteOptions(int64(i % 3))); err != nil {
				errs <- err
			}
		}()
	}
	gone := map[string]bool{}
	for limit := time.After(startLimit); len(gone) < n; {
		select {
		case e := <-follow.ResultChan():
			p, ok := e.Object.(*corev1.Pod)
			if !ok {
				fatal("event %v", e)
			}
			if err := check(p); err != nil {
				fatal("%s: %v: %v", p.Name, err, p.Status)
			}
			if e.Type == "DELETED" {
				gone[p.Name] = true
			}
		case err := <-errs:
			done(err)
		case <-limit:
			fatal("only %d of %d pods are gone", len(gone), n)
		}
	}
	wg.Wait()
}

func churnNeverSucceeds(w *world) {
	w.churned(func(i int) *corev1.Pod {
		return pod(fmt.Sprintf("fails-%d", i), "", first(func(c *corev1.Container) { c.Command = []string{"/bin/false"} }))
	}, func(p *corev1.Pod) error {
		if p.Status.Phase == corev1.PodSucceeded {
			return fmt.Errorf("it succeeded")
		}
		for _, s := range p.Status.ContainerStatuses {
			if t := s.State.Terminated; t != nil && t.ExitCode == 0 {
				return fmt.Errorf("exit code 0")
			}
			if s.RestartCount > 0 {
				return fmt.Errorf("it restarted")
			}
		}
		return nil
	})
}

func churnNeverStarts(w *world) {
	w.churned(func(i int) *corev1.Pod {
		return pod(fmt.Sprintf("init-%d", i), "true", func(p *corev1.Pod) { p.Spec.InitContainers = []corev1.Container{box("fail", "exit 1")} })
	}, func(p *corev1.Pod) error {
		for _, s := range p.Status.ContainerStatuses {
			if s.State.Running != nil || s.Started != nil && *s.Started || s.LastTerminationState.Terminated != nil {
				return fmt.Errorf("its container started")
			}
			if t := s.State.Terminated; t != nil && t.ExitCode == 0 {
				return fmt.Errorf("exit code 0")
			}
		}
		return nil
	})
}

func podEvents(w *world) {
	p := w.ready(pod("events", sleepScript))
	for source, reason := range map[string]string{"default-scheduler": "Scheduled", "kubelet": "Started"} {
		selector := fields.Set{"involvedObject.kind": "Pod", "involvedObject.uid": string(p.UID), "involvedObject.namespace": w.ns, "source": source}.AsSelector().String()
		w.until(60*time.Second, "events of "+source, func() error {
			list := must(api.CoreV1().Events(w.ns).List(ctx, metav1.ListOptions{FieldSelector: selector}))
			for _, e := range list.Items {
				if e.Reason == reason {
					return nil
				}
			}
			return fmt.Errorf("%d others", len(list.Items))
		})
	}
}

func preStopWaits(w *world) {
	w.ready(pod("waits", sleepScript, func(p *corev1.Pod) { p.Spec.TerminationGracePeriodSeconds = ptr(int64(30)) }, first(func(c *corev1.Container) {
		c.Lifecycle = &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{"sh", "-c", "sleep 8"}}}}
	})))
	done(api.CoreV1().Pods(w.ns).Delete(ctx, "waits", *metav1.NewDeleteOptions(20)))
	w.holds(5*time.Second, "it runs until the hook has ended", func() error {
		p := w.get("waits")
		return differs("phase", p.Status.Phase, corev1.PodRunning)
	})
	w.podGone("waits")
}

func endpointsLatency(w *world) {
	w.replicas("latency", 1)
	const n = 30
	var took []time.Duration
	for i := range n {
		name := fmt.Sprintf("latency-%d", i)
		start := time.Now()
		w.service(name, map[string]string{"name": "latency"}, 80, 8080)
		w.until(20*time.Second, name, func() error {
			e, err := api.CoreV1().Endpoints(w.ns).Get(ctx, name, metav1.GetOptions{})
			if err == nil && len(e.Subsets) == 0 {
				err = errGone
			}
			return err
		})
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	if half, most := took[n/2], took[n-1]; half > 20*time.Second || most > 50*time.Second {
		fatal("half took over %s, one %s: %s", half, most, strings.Trim(fmt.Sprint(took), "[]"))
	}
}
