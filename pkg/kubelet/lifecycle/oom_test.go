package lifecycle

import (
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// TestOOMToldLate: a container that the kernel killed for memory is told of, and followed, when the runtime has said so; nobody waits
// for that word where it cannot come.
func TestOOMToldLate(t *testing.T) {
	for name, c := range map[string]struct {
		code   int32
		reason string
		age    time.Duration
		// kills are those of the kernel since the pod came, said is after how long the runtime tells of one.
		kills  int64
		said   time.Duration
		change func(*worker)
		// waits is how long the exit is held back.
		waits time.Duration
	}{
		"told at once":                      {code: 137, reason: "OOMKilled", kills: 1},
		"told late":                         {code: 137, reason: "Error", kills: 1, said: 120 * time.Millisecond, waits: 150 * time.Millisecond},
		"never told":                        {code: 137, reason: "Error", kills: 1, said: time.Hour, waits: settling},
		"nobody was killed for memory":      {code: 137, reason: "Error", said: time.Hour},
		"it ended by itself":                {code: 1, reason: "Error", kills: 1, said: time.Hour},
		"it ended long ago":                 {code: 137, reason: "Error", age: time.Minute, kills: 1, said: time.Hour},
		"the clock went back":               {code: 137, reason: "Error", age: -time.Hour, kills: 1, said: time.Hour},
		"we killed it":                      {code: 137, reason: "Error", kills: 1, said: time.Hour, change: func(w *worker) { w.killing["c1"] = now() }},
		"its end was seen":                  {code: 137, reason: "Error", kills: 1, said: time.Hour, change: func(w *worker) { w.seen["c1"] = Container{ID: "c1", State: Exited} }},
		"the pod is deleted":                {code: 137, reason: "Error", kills: 1, said: time.Hour, change: func(w *worker) { w.deadline = now() }},
		"the node ends the pod":             {code: 137, reason: "Error", kills: 1, said: time.Hour, change: func(w *worker) { w.failure = &Failure{} }},
		"the pod is deleted while it waits": {code: 137, reason: "Error", kills: 1, said: time.Hour, waits: 300 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := &asked{boxes: []*runtimeapi.PodSandbox{{Id: "s"}}}
				a.run("c1", "c", 1, runtimeapi.ContainerState_CONTAINER_EXITED)
				begun, kills := time.Now(), int64(7)
				it := a.containers[0]
				it.ExitCode, it.Reason, it.FinishedAt = c.code, c.reason, begun.Add(-c.age).UnixNano()
				m := New(Config{CRI: a.client(), Volumes: folder{path: t.TempDir()}, Log: slog.New(slog.DiscardHandler)})
				m.oomKills = func() int64 { return kills }
				m.Start(t.Context())
				w := newWorker(m, &v1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "u"}, Spec: v1.PodSpec{Containers: []v1.Container{{Name: "c"}}}}, false)
				kills += c.kills
				if c.change != nil {
					c.change(w)
				}
				for {
					err := w.look(t.Context())
					if err == nil {
						break
					}
					if !errors.Is(err, errUnsettled) || w.observed.Latest("c") != nil {
						t.Fatal(err, seen(w.observed))
					}
					time.Sleep(settleAgain)
					passed := time.Since(begun)
					if c.said > 0 && passed >= c.said {
						it.Reason = "OOMKilled"
					}
					if name == "the pod is deleted while it waits" && passed >= 300*time.Millisecond {
						w.deadline = now()
					}
				}
				want := "Error"
				if c.reason == "OOMKilled" || c.said > 0 && c.waits >= c.said {
					want = "OOMKilled"
				}
				if got, reason := time.Since(begun), w.observed.Latest("c").Reason; got != c.waits || reason != want {
					t.Errorf("%s after %s, want %s after %s", reason, got, want, c.waits)
				}
			})
		})
	}
}

// TestOOMKills: the kernel's count is read.
func TestOOMKills(t *testing.T) {
	if n := oomKills(); n < 0 {
		t.Error(n)
	}
}
