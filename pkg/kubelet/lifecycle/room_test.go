package lifecycle

import (
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
)

// TestRoomForSome: of pods that come at once as many are let in as there is room for, and of those that grow at once as many grow.
func TestRoomForSome(t *testing.T) {
	const come, fit, grow = 20, 7, 3
	full := &Failure{Reason: "OutOfcpu", Message: "full"}
	m := New(Config{Log: slog.New(slog.DiscardHandler), Recorder: record.NewFakeRecorder(2 * come),
		Admit: func(_ *v1.Pod, active []*v1.Pod) *Failure {
			time.Sleep(time.Millisecond) // the others come meanwhile
			if len(active) >= fit {
				return full
			}
			return nil
		},
		Room: func(_ *v1.Pod, active []*v1.Pod) *Failure {
			time.Sleep(time.Millisecond)
			used := 0
			for _, p := range active {
				if p.Spec.Containers[0].Resources.Requests.Cpu().Value() == 2 {
					used++
				}
			}
			if used >= grow {
				return full
			}
			return nil
		}})
	pod := func(i int, cpu string) *v1.Pod {
		return &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: fmt.Sprint(i), UID: types.UID(fmt.Sprint(i))}, Spec: v1.PodSpec{Containers: []v1.Container{{Name: "c", Resources: sizes(cpu, "1Mi")}}}}
	}
	for i := range come {
		m.workers[fmt.Sprint(i)] = newWorker(m, pod(i, "1"), true)
	}
	all := func(f func(i int, w *worker)) {
		var wg sync.WaitGroup
		for i := range come {
			wg.Go(func() { f(i, m.workers[fmt.Sprint(i)]) })
		}
		wg.Wait()
	}
	all(func(_ int, w *worker) {
		if f := w.refuse(w.snapshotLocked()); f != nil {
			w.failure = f
		}
	})
	if n := len(m.active("")); n != fit {
		t.Errorf("%d pods are in, there is room for %d", n, fit)
	}
	all(func(i int, w *worker) {
		w.update(pod(i, "2"))
		w.grant()
	})
	grown := 0
	for _, p := range m.active("") {
		if p.Spec.Containers[0].Resources.Requests.Cpu().Value() == 2 {
			grown++
		}
	}
	if grown != grow {
		t.Errorf("%d pods have grown, there is room for %d", grown, grow)
	}
	// What ran under a kubelet before is in before anybody asks.
	ran := pod(come, "1")
	ran.Status.StartTime = &metav1.Time{}
	m.workers[fmt.Sprint(come)] = newWorker(m, ran, false)
	if n := len(m.active("")); n != fit+1 {
		t.Errorf("%d pods are in, one of them from before; want %d", n, fit+1)
	}
}
