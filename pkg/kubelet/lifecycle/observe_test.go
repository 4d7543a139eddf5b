package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sextant-k8s/sextant/pkg/kubelet/cri"
)

// asked is a runtime which knows sandboxes and containers, and writes down what it is asked.
type asked struct {
	runtimeapi.RuntimeServiceClient
	boxes      []*runtimeapi.PodSandbox
	containers []*runtimeapi.ContainerStatus

	mu    sync.Mutex
	calls []string
}

func (a *asked) note(what string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.calls = append(a.calls, what)
}

// said is what was asked since the last time, in no order of time.
func (a *asked) said() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := slices.Clone(a.calls)
	a.calls = nil
	slices.Sort(out)
	return strings.Join(out, ", ")
}

func (a *asked) ListPodSandbox(context.Context, *runtimeapi.ListPodSandboxRequest, ...grpc.CallOption) (*runtimeapi.ListPodSandboxResponse, error) {
	a.note("sandboxes")
	return &runtimeapi.ListPodSandboxResponse{Items: a.boxes}, nil
}

func (a *asked) ListContainers(context.Context, *runtimeapi.ListContainersRequest, ...grpc.CallOption) (*runtimeapi.ListContainersResponse, error) {
	a.note("containers")
	out := &runtimeapi.ListContainersResponse{}
	for _, c := range a.containers {
		out.Containers = append(out.Containers, &runtimeapi.Container{Id: c.Id, PodSandboxId: "s", State: c.State})
	}
	return out, nil
}

func (a *asked) PodSandboxStatus(_ context.Context, r *runtimeapi.PodSandboxStatusRequest, _ ...grpc.CallOption) (*runtimeapi.PodSandboxStatusResponse, error) {
	a.note(r.PodSandboxId)
	return &runtimeapi.PodSandboxStatusResponse{Status: &runtimeapi.PodSandboxStatus{Network: &runtimeapi.PodSandboxNetworkStatus{Ip: "10.0.0.1"}}}, nil
}

func (a *asked) ContainerStatus(_ context.Context, r *runtimeapi.ContainerStatusRequest, _ ...grpc.CallOption) (*runtimeapi.ContainerStatusResponse, error) {
	a.note(r.ContainerId)
	for _, c := range a.containers {
		if c.Id == r.ContainerId {
			return &runtimeapi.ContainerStatusResponse{Status: c}, nil
		}
	}
	return nil, status.Error(codes.NotFound, "no such container")
}

func (a *asked) client() *cri.Client { return &cri.Client{RuntimeServiceClient: a} }

func (a *asked) run(id, name string, created int64, state runtimeapi.ContainerState) {
	a.containers = append(a.containers, &runtimeapi.ContainerStatus{Id: id, Metadata: &runtimeapi.ContainerMetadata{Name: name}, ImageRef: "i", CreatedAt: created, State: state})
}

// seen is an observation in words.
func seen(o Observed) string {
	var out []string
	for _, s := range o.Sandboxes {
		out = append(out, fmt.Sprintf("%s %v %v", s.ID, s.Ready, s.IPs))
	}
	for name, cs := range o.Containers {
		for _, c := range cs {
			out = append(out, fmt.Sprintf("%s=%s in %s %d", name, c.ID, c.SandboxID, c.State))
		}
	}
	slices.Sort(out[len(o.Sandboxes):])
	return strings.Join(out, "; ")
}

// TestObserve: what cannot have changed is not asked again.
func TestObserve(t *testing.T) {
	a := &asked{boxes: []*runtimeapi.PodSandbox{{Id: "old", State: runtimeapi.PodSandboxState_SANDBOX_NOTREADY, CreatedAt: 5}, {Id: "s", CreatedAt: 1}}}
	a.run("c1", "c", 1, runtimeapi.ContainerState_CONTAINER_EXITED)
	a.run("c2", "c", 2, runtimeapi.ContainerState_CONTAINER_RUNNING)
	var o Observed
	for _, want := range []string{"c1, c2, containers, s, sandboxes", "c2, containers, sandboxes"} {
		var err error
		if o, err = observe(t.Context(), a.client(), "u", o); err != nil {
			t.Fatal(err)
		}
		if got := seen(o); got != "s true [10.0.0.1]; old false []; c=c1 in s 3; c=c2 in s 2" || o.Latest("c").ID != "c2" {
			t.Error(got)
		}
		if got := a.said(); got != want {
			t.Errorf("asked for %s, want %s", got, want)
		}
	}
	// A sandbox that is ready again under the same name of an unready one is asked.
	a.boxes[0].State, a.boxes[1].State = runtimeapi.PodSandboxState_SANDBOX_READY, runtimeapi.PodSandboxState_SANDBOX_NOTREADY
	if o, err := observe(t.Context(), a.client(), "u", o); err != nil || seen(o) != "old true [10.0.0.1]; s false []; c=c1 in s 3; c=c2 in s 2" {
		t.Error(seen(o), err)
	}
}

// TestOwnStart: of what the worker started itself only the new container is asked for; whatever is odd about it has all looked at.
func TestOwnStart(t *testing.T) {
	a := &asked{}
	m := New(Config{CRI: a.client(), Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
	m.Start(t.Context())
	pod := &v1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "u"}, Spec: v1.PodSpec{Containers: []v1.Container{{Name: "c"}}}}
	w := newWorker(m, pod, true)
	look := func(want string) {
		t.Helper()
		if err := w.look(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := a.said(); got != want {
			t.Errorf("asked for %q, want %q", got, want)
		}
		if w.busyLocked() {
			t.Error("the worker still waits for a look")
		}
	}
	look("")
	w.made = &Sandbox{ID: "s", Ready: true, IPs: []string{"10.0.0.9"}}
	look("")
	a.run("c1", "c", 1, runtimeapi.ContainerState_CONTAINER_RUNNING)
	w.begun, w.ended = []begun{{"c1", "s"}}, w.ended+1
	look("c1")
	if got := seen(w.observed); got != "s true [10.0.0.9]; c=c1 in s 2" {
		t.Error(got)
	}
	// A start that made nothing is over all the same.
	w.ended++
	look("")
	// A word of the runtime has all of it looked at, what was made meanwhile too.
	a.boxes, w.dirty = []*runtimeapi.PodSandbox{{Id: "s"}}, true
	w.begun = []begun{{"c1", "s"}}
	look("c1, containers, sandboxes")
	// What has gone already, and what the runtime does not tell whole, is looked for in the lists.
	w.begun = []begun{{"c9", "s"}}
	look("c1, c9, containers, sandboxes")
	a.containers[0].ImageRef, w.begun = "", []begun{{"c1", "s"}}
	look("c1, c1, containers, sandboxes")
	a.RuntimeServiceClient, w.dirty, w.stopped = nil, true, []string{"c1"}
	w.m.cfg.CRI = (&failing{}).client()
	if err := w.look(t.Context()); err == nil || !w.dirty || len(w.stopped) != 1 {
		t.Error("a look that failed is not done again:", err, w.dirty, w.stopped)
	}
}

type failing struct{ asked }

func (f *failing) client() *cri.Client { return &cri.Client{RuntimeServiceClient: f} }

func (f *failing) ListPodSandbox(context.Context, *runtimeapi.ListPodSandboxRequest, ...grpc.CallOption) (*runtimeapi.ListPodSandboxResponse, error) {
	return nil, errors.New("it hangs")
}

// TestUnknown: only a pod which the runtime cannot have is not asked for.
func TestUnknown(t *testing.T) {
	m := New(Config{})
	ask := func(uid string) bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		return !m.unknownLocked(uid)
	}
	if !ask("new") {
		t.Error("nothing is known yet")
	}
	m.Listed(map[string]bool{"there": true})
	if !ask("there") || ask("new") {
		t.Error("the list is not heeded")
	}
	m.forget("was")
	for i, want := range []bool{true, true, false} {
		if got := ask("was"); got != want {
			t.Errorf("%d lists after its end: asked %v", i, got)
		}
		m.Listed(map[string]bool{})
	}
}
