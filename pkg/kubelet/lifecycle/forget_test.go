package lifecycle

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sextant-k8s/sextant/pkg/kubelet/cri"
)

// forgetful removes containers, but stuck.
type forgetful struct {
	runtimeapi.RuntimeServiceClient
	stuck   string
	removed []string
}

func (f *forgetful) RemoveContainer(_ context.Context, r *runtimeapi.RemoveContainerRequest, _ ...grpc.CallOption) (*runtimeapi.RemoveContainerResponse, error) {
	if r.ContainerId == f.stuck {
		return nil, errors.New("no")
	}
	f.removed = append(f.removed, r.ContainerId)
	return &runtimeapi.RemoveContainerResponse{}, nil
}

// folder is where a pod's files are.
type folder struct {
	Volumes
	path string
}

func (f folder) PodDir(string) string { return f.path }

// TestForgetContainers: what the runtime is made to forget leaves its newest log, which counts its starts; a crash counts once,
// however often removing is tried.
func TestForgetContainers(t *testing.T) {
	root := t.TempDir()
	pod := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "p", UID: "u"}, Spec: v1.PodSpec{Containers: []v1.Container{{Name: "a"}, {Name: "b",
		RestartPolicyRules: []v1.ContainerRestartRule{{Action: v1.ContainerRestartRuleActionRestartAllContainers,
			ExitCodes: &v1.ContainerRestartRuleOnExitCodes{Operator: v1.ContainerRestartRuleOnExitCodesOpIn, Values: []int32{7}}}}}}}}
	runtime := &forgetful{stuck: "b2"}
	m := New(Config{CRI: &cri.Client{RuntimeServiceClient: runtime}, LogDir: root, Volumes: folder{path: root}, Log: slog.New(slog.DiscardHandler), MaxBackoff: time.Minute})
	w := newWorker(m, pod, true)
	m.workers["u"] = w
	dir := LogDir(root, pod)
	ended := func(id, name string, n int) Container {
		return Container{ID: id, Name: name, SandboxID: "s", State: Exited, ExitCode: 7, Restarts: n, LogPath: filepath.Join(dir, name, "2.log")}
	}
	w.observed = Observed{Containers: map[string][]Container{"a": {ended("a1", "a", 2)}, "b": {ended("b2", "b", 2), ended("b1", "b", 1)}}}
	for _, file := range []string{"a/2.log", "a/2.log.20260102-030405", "b/0.log", "b/1.log", "b/1.log.20260102-030405", "b/2.log"} {
		path := filepath.Join(dir, file)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, nil, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	try := func() Plan {
		w.mu.Lock()
		s := w.snapshotLocked()
		w.mu.Unlock()
		p := decide(s)
		w.forgetContainers(t.Context(), s, p.Remove)
		return p
	}
	if p := try(); p.String() != "forget a; forget b; forget b; because all containers are restarted" {
		t.Error(p)
	}
	if len(w.backoff) != 0 || w.retry[""].IsZero() {
		t.Error("it is not to be tried again: ", w.backoff, w.retry)
	}
	if _, ok := m.Container("u", "b", true); !ok {
		t.Error("the older instance of b is still the one before")
	}
	runtime.stuck, w.retry = "", map[string]time.Time{}
	try()
	if got := strings.Join(runtime.removed, " "); got != "a1 b1 a1 b1 b2" || w.backoff["b"] != 10*time.Second {
		t.Error(got, w.backoff)
	}
	w.observed = Observed{}
	if c, ok := m.Container("u", "b", true); !ok || c.ID != "b2" {
		t.Error("the run before is ", c)
	}
	if c, ok := m.Container("u", "b", false); ok {
		t.Error("there is no run now: ", c)
	}
	for name, want := range map[string]string{"a": "2.log 2.log.20260102-030405", "b": "2.log"} {
		var left []string
		entries, _ := os.ReadDir(filepath.Join(dir, name))
		for _, e := range entries {
			left = append(left, e.Name())
		}
		if got := strings.Join(left, " "); got != want || restartsOnDisk(dir, name) != 3 {
			t.Errorf("of %s stay %s, and it has started %d times", name, got, restartsOnDisk(dir, name))
		}
	}
	if restartsOnDisk(dir, "none") != 0 {
		t.Error("what never started has not been started")
	}
}

// TestFirstVerdict: what the API says of a running instance is believed of that one only.
func TestFirstVerdict(t *testing.T) {
	yes := true
	c := v1.Container{Name: "c", StartupProbe: &v1.Probe{}, ReadinessProbe: &v1.Probe{}}
	pod := &v1.Pod{Status: v1.PodStatus{ContainerStatuses: []v1.ContainerStatus{{Name: "c", ContainerID: "containerd://one", Ready: true, Started: &yes,
		State: v1.ContainerState{Running: &v1.ContainerStateRunning{}}}}}}
	if v := firstVerdict(pod, &c, "one"); !v.Started || !v.Ready {
		t.Error("the adopted instance: ", v)
	}
	if v := firstVerdict(pod, &c, "two"); v.Started || v.Ready {
		t.Error("the next instance: ", v)
	}
}
