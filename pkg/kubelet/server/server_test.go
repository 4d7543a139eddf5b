package server

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
)

const sample = "2026-01-01T00:00:00.5Z stdout F one\n2026-01-01T00:00:01Z stderr F two\n2026-01-01T00:00:02Z stdout P thr\n2026-01-01T00:00:02Z stdout F ee\n"

func TestCopyLog(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "c", "0.log")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(sample), 0o600); err != nil {
		t.Fatal(err)
	}
	for query, want := range map[string]string{
		"":                               "one\ntwo\nthree\n",
		"tailLines=2":                    "three\n",
		"tailLines=0":                    "",
		"limitBytes=5":                   "one\nt",
		"sinceTime=2026-01-01T00:00:01Z": "two\nthree\n",
		"timestamps=true&tailLines=3":    "2026-01-01T00:00:01.000000000Z two\n2026-01-01T00:00:02.000000000Z three\n",
		"stream=Stderr":                  "two\n",
	} {
		r := httptest.NewRequest(http.MethodGet, "/?"+query, nil)
		o, err := parseLogOptions(r, time.Time{})
		if err != nil {
			t.Fatal(err)
		}
		w := httptest.NewRecorder()
		if err := copyLog(context.Background(), dir, path, o, &flusher{w: w}, func() bool { return false }); err != nil {
			t.Fatal(err)
		}
		if got := w.Body.String(); got != want {
			t.Errorf("%s: got %q, want %q", query, got, want)
		}
	}
}

func TestLogFollowsNoLink(t *testing.T) {
	dir, other := t.TempDir(), filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(other, []byte(sample), 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "0.log")
	if err := os.Symlink(other, link); err != nil {
		t.Fatal(err)
	}
	if _, err := openLog(dir, link); err == nil {
		t.Error("a link out of the log folder was opened")
	}
}

func TestAttributes(t *testing.T) {
	for in, want := range map[string]string{
		"GET /exec/ns/p/c": "create proxy", "POST /exec/ns/p/c": "create proxy", "GET /containerLogs/ns/p/c": "get proxy",
		"GET /stats/summary": "get stats", "GET /metrics/cadvisor": "get metrics", "GET /pods": "get pods proxy", "GET /healthz": "get healthz proxy",
	} {
		method, path, _ := strings.Cut(in, " ")
		verb, subs := attributes(httptest.NewRequest(method, path, nil))
		if got := verb + " " + strings.Join(subs, " "); got != want {
			t.Errorf("%s: got %q, want %q", in, got, want)
		}
	}
}

func TestWhyThereIsNoLogYet(t *testing.T) {
	waiting := func(name, reason string) v1.ContainerStatus {
		return v1.ContainerStatus{Name: name, State: v1.ContainerState{Waiting: &v1.ContainerStateWaiting{Reason: reason}}}
	}
	pod := &v1.Pod{Status: v1.PodStatus{
		InitContainerStatuses: []v1.ContainerStatus{waiting("init", "CreateContainerConfigError")},
		ContainerStatuses:     []v1.ContainerStatus{waiting("pulls", "ErrImagePull"), waiting("backs", "ImagePullBackOff"), waiting("waits", "PodInitializing")},
	}}
	for name, want := range map[string]string{
		"init": "CreateContainerConfigError", "pulls": "image can't be pulled", "backs": "trying and failing to pull image",
		"waits": "PodInitializing", "new": "ContainerCreating",
	} {
		if got := waitsFor(pod, name); got != want {
			t.Errorf("%s waits for %q, want %q", name, got, want)
		}
	}
}
