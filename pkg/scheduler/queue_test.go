package scheduler

import (
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/sextant-k8s/sextant/pkg/scheduler/rules"
)

func queued(name string, priority int32, gates ...string) (*rules.Pod, *v1.Pod) {
	p := &v1.Pod{}
	p.Namespace, p.Name, p.Spec.Priority = "default", name, &priority
	for _, g := range gates {
		p.Spec.SchedulingGates = append(p.Spec.SchedulingGates, v1.PodSchedulingGate{Name: g})
	}
	return rules.NewPod(p), p
}

func TestQueue(t *testing.T) {
	q := newQueue(time.Second, 10*time.Second, 5*time.Minute)
	now := time.Unix(1000, 0)
	set := func(name string, priority int32, gates ...string) {
		p, raw := queued(name, priority, gates...)
		q.set(p, raw, now)
	}
	// What refused a pod stands for the kind of event it waits for.
	gone := []string{"pod gone"}
	helps := func(w *waiting, e rules.Event) bool { return w.rejectors[0] == gone[0] && e.Kind == rules.PodGone }
	event := func(kind rules.Kind) {
		e := rules.Event{Kind: kind}
		q.event(now, e, func(w *waiting) bool { return helps(w, e) })
	}
	pop := func(want string) *waiting {
		t.Helper()
		w := q.pop(now)
		got := ""
		if w != nil {
			got = w.pod.Name()
		}
		if got != want {
			t.Fatalf("popped %q, want %q", got, want)
		}
		return w
	}
	set("low", 0)
	set("gated", 9, "wait")
	now = now.Add(time.Millisecond)
	set("later", 0)
	set("high", 5)
	high := pop("high")
	low := pop("low")
	pop("later")
	q.done("default/later")
	pop("")

	// Refused: only an event that helps brings it back, and not before its back-off is over.
	q.park(high, gone, now, helps)
	event(rules.NodeChanged)
	event(rules.PodGone)
	pop("")
	now = now.Add(time.Second)
	high = pop("high")

	// What happens while a pod is being decided is not lost.
	event(rules.PodGone)
	q.park(high, gone, now, helps)
	if high.heap != &q.delay {
		t.Error("a pod whose event came during the decision is not in back-off")
	}
	now = now.Add(time.Second)
	pop("")
	now = now.Add(time.Second)
	high = pop("high")

	// An error is tried again after the back-off, without an event.
	q.retry(high, now)
	q.retry(low, now)
	now = now.Add(time.Second)
	pop("low")
	now = now.Add(3 * time.Second)
	pop("high")

	set("gated", 9)
	pop("gated")
	q.remove("default/gated")
	if q.find("default/gated") != nil {
		t.Error("a removed pod is still known")
	}
	if d := q.backoff(40); d != 10*time.Second {
		t.Errorf("back-off after 40 attempts is %v", d)
	}
}
