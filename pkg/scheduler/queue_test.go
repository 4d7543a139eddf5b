package scheduler

import (
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/sextant-k8s/sextant/pkg/scheduler/rules"
)

func queued(name string, priority int32, gates ...string) *rules.Pod {
	p := &v1.Pod{}
	p.Namespace, p.Name, p.Spec.Priority = "default", name, &priority
	for _, g := range gates {
		p.Spec.SchedulingGates = append(p.Spec.SchedulingGates, v1.PodSchedulingGate{Name: g})
	}
	return rules.NewPod(p)
}

func TestQueue(t *testing.T) {
	q := newQueue(time.Second, 10*time.Second)
	now := time.Unix(1000, 0)
	pop := func(want string) *waiting {
		t.Helper()
		w := q.pop(now)
		got := ""
		if w != nil {
			got = w.pod.Name
		}
		if got != want {
			t.Fatalf("popped %q, want %q", got, want)
		}
		return w
	}
	q.set(queued("low", 0), now)
	q.set(queued("gated", 9, "wait"), now)
	now = now.Add(time.Millisecond)
	q.set(queued("later", 0), now)
	q.set(queued("high", 5), now)
	high := pop("high")
	low := pop("low")
	pop("later")
	q.done("default/later")
	pop("")

	// Refused: only an event that helps brings it back, and not before its back-off is over.
	q.park(high, rules.PodGone, now)
	q.event(rules.NodeChanged, now)
	q.event(rules.PodGone, now)
	pop("")
	now = now.Add(time.Second)
	high = pop("high")

	// What happens while a pod is being decided is not lost.
	q.event(rules.PodGone, now)
	q.park(high, rules.PodGone, now)
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

	q.set(queued("gated", 9), now)
	pop("gated")
	q.remove("default/gated")
	if q.find("default/gated") != nil {
		t.Error("a removed pod is still known")
	}
	if d := q.backoff(40); d != 10*time.Second {
		t.Errorf("back-off after 40 attempts is %v", d)
	}
}
