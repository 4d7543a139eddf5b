package lifecycle

import (
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// TestOOMUntold: a container that ends by SIGKILL when the kernel kills for memory was killed for memory, though the runtime does not
// say so; one that we killed, or that ended at another time or otherwise, was not.
func TestOOMUntold(t *testing.T) {
	const oom, end = 10 * time.Second, 10200 * time.Millisecond
	for name, c := range map[string]struct {
		code   int32
		reason string
		// kill and end are when the kernel killed somebody, zero for never, and when the container ended; seen is how much later that is seen.
		kill, end, seen time.Duration
		change          func(*worker)
		want            string
	}{
		"untold":                    {137, "Error", oom, end, 0, nil, "OOMKilled"},
		"untold and seen late":      {137, "Error", oom, end, 900 * time.Millisecond, nil, "OOMKilled"},
		"told":                      {137, "OOMKilled", 0, end, 0, nil, "OOMKilled"},
		"nobody was killed":         {137, "Error", 0, end, 0, nil, "Error"},
		"somebody was killed once":  {137, "Error", oom, oom + 4*time.Second, 0, nil, "Error"},
		"it ended before we came":   {137, "Error", oom, -time.Second, oom + time.Second, nil, "Error"},
		"it ended by itself":        {1, "Error", oom, end, 0, nil, "Error"},
		"we killed it":              {137, "Error", oom, end, 0, func(w *worker) { w.killing["c1"] = now() }, "Error"},
		"our kill of it has ended":  {137, "Error", oom, end, 0, func(w *worker) { w.killing["c1"], w.stopped = now(), []string{"c1"} }, "Error"},
		"its end had been told":     {137, "Error", oom, end, 0, func(w *worker) { w.messages["c1"] = "" }, "Error"},
		"the pod was to be deleted": {137, "Error", oom, end, 0, func(w *worker) { w.deadline = now() }, "Error"},
		"the node ended the pod":    {137, "Error", oom, end, 0, func(w *worker) { w.failure = &Failure{} }, "Error"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begun := time.Now()
				a := &asked{boxes: []*runtimeapi.PodSandbox{{Id: "s"}}}
				a.run("c1", "c", 1, runtimeapi.ContainerState_CONTAINER_EXITED)
				it := a.containers[0]
				it.ExitCode, it.Reason, it.FinishedAt = c.code, c.reason, begun.Add(c.end).UnixNano()
				m := New(Config{CRI: a.client(), Volumes: folder{path: t.TempDir()}, Log: slog.New(slog.DiscardHandler)})
				m.ooms.count = 7
				m.ooms.kills = func() int64 {
					if c.kill > 0 && time.Since(begun) >= c.kill {
						return 8
					}
					return 7
				}
				m.Start(t.Context())
				w := newWorker(m, &v1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "u"}, Spec: v1.PodSpec{Containers: []v1.Container{{Name: "c"}}}}, false)
				if c.change != nil {
					c.change(w)
				}
				time.Sleep(c.end + c.seen)
				for range 2 {
					// What was once found out stays, whatever else is looked at.
					if err := w.look(t.Context()); err != nil {
						t.Fatal(err)
					}
					if got := w.observed.Latest("c").Reason; got != c.want {
						t.Errorf("%s, want %s", got, c.want)
					}
					w.dirty = true
					time.Sleep(time.Minute)
				}
			})
		})
	}
}

// TestOOMStaysTold: what an earlier kubelet told of a container's end is not taken back for the runtime's word.
func TestOOMStaysTold(t *testing.T) {
	end := &v1.ContainerStateTerminated{ExitCode: 137, Reason: "OOMKilled", ContainerID: "containerd://c1"}
	for _, old := range []v1.ContainerStatus{{State: v1.ContainerState{Terminated: end}}, {LastTerminationState: v1.ContainerState{Terminated: end}}} {
		for id, want := range map[string]string{"c1": "OOMKilled", "c2": "Error"} {
			if got := (View{}).terminated(&Container{ID: id, ExitCode: 137, Reason: "Error"}, &old).Reason; got != want {
				t.Errorf("%s: %s, want %s", id, got, want)
			}
		}
	}
}

// TestOOMKills: the kernel's count is read.
func TestOOMKills(t *testing.T) {
	if n := oomKills(); n < 0 {
		t.Error(n)
	}
}
