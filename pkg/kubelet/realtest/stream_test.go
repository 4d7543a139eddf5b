package realtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"
	"k8s.io/client-go/util/exec"
)

func TestExecAndAttach(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.create("p", `{containers: [{name: c, stdin: true, command: [sh, -c, "while read l; do echo got $l; done; sleep 600"]}]}`)
	s.ready("p")
	at := func(sub string, o any) *url.URL {
		codec := scheme.ParameterCodec
		req := node.admin.CoreV1().RESTClient().Post().Resource("pods").Namespace(s.name).Name("p").SubResource(sub)
		switch o := o.(type) {
		case *v1.PodExecOptions:
			req = req.VersionedParams(o, codec)
		case *v1.PodAttachOptions:
			req = req.VersionedParams(o, codec)
		}
		return req.URL()
	}
	executors := map[string]func(u *url.URL) (remotecommand.Executor, error){
		"websocket": func(u *url.URL) (remotecommand.Executor, error) {
			return remotecommand.NewWebSocketExecutor(node.rest, http.MethodGet, u.String())
		},
		"spdy": func(u *url.URL) (remotecommand.Executor, error) {
			return remotecommand.NewSPDYExecutor(node.rest, http.MethodPost, u)
		},
	}
	for name, make := range executors {
		t.Run(name, func(t *testing.T) {
			e, err := make(at("exec", &v1.PodExecOptions{Command: []string{"sh", "-c", "cat; echo bad >&2; exit 7"}, Stdin: true, Stdout: true, Stderr: true}))
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			var out, bad bytes.Buffer
			// A megabyte and the end of input both must arrive.
			in := strings.Repeat("0123456789abcde\n", 1<<16)
			err = e.StreamWithContext(ctx, remotecommand.StreamOptions{Stdin: strings.NewReader(in), Stdout: &out, Stderr: &bad})
			var code exec.CodeExitError
			if !errors.As(err, &code) || code.Code != 7 || out.String() != in || bad.String() != "bad\n" {
				t.Errorf("err %v, %d bytes of %d, stderr %q", err, out.Len(), len(in), bad.String())
			}
			e, err = make(at("attach", &v1.PodAttachOptions{Stdin: true, Stdout: true, Stderr: true}))
			if err != nil {
				t.Fatal(err)
			}
			r, w := io.Pipe()
			seen := &signal{want: "got " + name, found: func() { cancel() }}
			go func() { _, _ = io.WriteString(w, name+"\n") }()
			_ = e.StreamWithContext(ctx, remotecommand.StreamOptions{Stdin: r, Stdout: seen, Stderr: io.Discard})
			if !strings.Contains(seen.String(), "got "+name) {
				t.Errorf("attached, it said %q", seen.String())
			}
			_ = w.Close()
		})
	}
	if out, err := s.exec("p", "c", "/no/such"); err == nil {
		t.Error("a command which does not exist was run:", out)
	}
}

// signal is a buffer which calls found once it holds what is wanted.
type signal struct {
	mu    sync.Mutex
	text  strings.Builder
	want  string
	found func()
}

func (s *signal) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

func (s *signal) Write(b []byte) (int, error) {
	s.mu.Lock()
	n, err := s.text.Write(b)
	s.mu.Unlock()
	if strings.Contains(s.String(), s.want) {
		s.found()
	}
	return n, err
}

func TestPortForward(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.create("p", `{containers: [{name: c, command: [sh, -c, "mkdir /w; echo hello > /w/f; httpd -f -p 8080 -h /w"], readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}}]}`)
	s.ready("p")
	u := node.admin.CoreV1().RESTClient().Post().Resource("pods").Namespace(s.name).Name("p").SubResource("portforward").URL()
	rt, up, err := spdy.RoundTripperFor(node.rest)
	if err != nil {
		t.Fatal(err)
	}
	spdyDialer := spdy.NewDialer(up, &http.Client{Transport: rt}, http.MethodPost, u)
	tunnel, err := portforward.NewSPDYOverWebsocketDialer(u, node.rest)
	if err != nil {
		t.Fatal(err)
	}
	for i, d := range []any{spdyDialer, tunnel} {
		stop, ready := make(chan struct{}), make(chan struct{})
		var f *portforward.PortForwarder
		switch i {
		case 0:
			f, err = portforward.New(spdyDialer, []string{"0:8080"}, stop, ready, io.Discard, io.Discard)
		default:
			f, err = portforward.New(tunnel, []string{"0:8080"}, stop, ready, io.Discard, io.Discard)
		}
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- f.ForwardPorts() }()
		select {
		case <-ready:
		case err := <-done:
			t.Fatalf("%T: %v", d, err)
		}
		ports, err := f.GetPorts()
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			resp, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/f", ports[0].Local))
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			if string(body) != "hello\n" {
				t.Errorf("%q", body)
			}
		}
		close(stop)
	}
}

func TestLogs(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.create("p", `{restartPolicy: Never, containers: [{name: c, command: [sh, -c, "echo one; sleep 0.3; echo two >&2; sleep 2.2; printf three"]}]}`)
	s.create("again", `{volumes: [{name: v, emptyDir: {}}], containers: [{name: c, command: [sh, -c, "if [ -e /v/r ]; then echo second; sleep 600; fi; touch /v/r; echo first; exit 1"], volumeMounts: [{name: v, mountPath: /v}]}]}`)
	s.ended("p", v1.PodSucceeded)
	n := func(i int64) *int64 { return &i }
	std := "Stderr"
	for want, o := range map[string]*v1.PodLogOptions{
		"one\ntwo\nthree": {}, "two\nthree": {TailLines: n(2)}, "": {TailLines: n(0)}, "one\ntw": {LimitBytes: n(6)}, "two\n": {Stream: &std}, "three": {TailLines: n(1)},
	} {
		if got := s.logs("p", o); got != want {
			t.Errorf("%+v: %q, want %q", o, got, want)
		}
	}
	lines := strings.Split(s.logs("p", &v1.PodLogOptions{Timestamps: true}), "\n")
	when, text, _ := strings.Cut(lines[len(lines)-1], " ")
	at, err := time.Parse(time.RFC3339Nano, when)
	if err != nil || text != "three" {
		t.Fatal(lines, err)
	}
	since := metav1.NewTime(at.Add(-time.Second).Truncate(time.Second))
	if got := s.logs("p", &v1.PodLogOptions{SinceTime: &since}); got != "three" {
		t.Errorf("since %s: %q", since, got)
	}
	s.until("again", "restarted", func(p *v1.Pod) bool {
		return container(p, "c").RestartCount == 1 && container(p, "c").State.Running != nil
	})
	s.logged("again", "second\n")
	if got := s.logs("again", &v1.PodLogOptions{Previous: true}); got != "first\n" {
		t.Errorf("previous: %q", got)
	}
}

func TestLogsFollowAndRotate(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.create("p", `{restartPolicy: Never, containers: [{name: c, command: [sh, -c, "i=0; while [ $i -lt 4000 ]; do i=$((i+1)); echo line $i xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx; [ $((i%1000)) = 0 ] && sleep 4; done; true"]}]}`)
	s.until("p", "started", func(p *v1.Pod) bool { return p.Status.Phase != v1.PodPending })
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	r, err := node.admin.CoreV1().Pods(s.name).GetLogs("p", &v1.PodLogOptions{Follow: true}).Stream(ctx)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := io.ReadAll(r)
	lines := strings.Split(strings.TrimSpace(string(raw)), "\n")
	if err != nil || len(lines) != 4000 || !strings.HasPrefix(lines[3999], "line 4000 ") {
		t.Errorf("followed %d lines, the last %q (%v)", len(lines), lines[len(lines)-1], err)
	}
	rotated := node.rotated(s.get("p"))
	if len(rotated) < 2 || len(rotated) > 3 {
		t.Error("want the log and at most two old ones, got", rotated)
	}
}
