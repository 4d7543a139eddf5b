package kubelet

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

func TestPageOfStaticPods(t *testing.T) {
	var mu sync.Mutex
	code, text := http.StatusOK, manifest
	answer := func(c int, s string) {
		mu.Lock()
		defer mu.Unlock()
		code, text = c, s
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case r.Header.Get("Metadata") != "yes":
			w.WriteHeader(http.StatusForbidden)
		case r.URL.Path == "/elsewhere":
			t.Error("followed a redirect with its headers")
		default:
			w.Header().Set("Location", "/elsewhere")
			w.WriteHeader(code)
			_, _ = w.Write([]byte(text))
		}
	}))
	defer srv.Close()
	sets, told := make(chan map[types.UID]*v1.Pod, 1000), make(chan string, 1000)
	p := &page{url: srv.URL, node: "n", header: http.Header{"Metadata": {"yes"}}, every: time.Millisecond, log: slog.New(slog.DiscardHandler),
		set: func(m map[types.UID]*v1.Pod) {
			select {
			case sets <- m:
			default:
			}
		}, broken: func(m string) { told <- m }}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { p.run(ctx); close(done) }()
	defer func() { cancel(); <-done }()
	names := func(want ...string) {
		t.Helper()
		end := time.After(10 * time.Second)
		for {
			select {
			case m := <-sets:
				found := map[string]bool{}
				for _, p := range m {
					found[p.Name] = p.Annotations[annotationSource] == "http" && p.Spec.NodeName == "n"
				}
				ok := len(found) == len(want)
				for _, w := range want {
					ok = ok && found[w]
				}
				if ok {
					return
				}
			case <-end:
				t.Fatalf("never read %q", want)
			}
		}
	}
	says := func(part string) {
		t.Helper()
		select {
		case m := <-told:
			if !strings.Contains(m, part) {
				t.Errorf("told %q, want %q", m, part)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("never told of %q", part)
		}
	}
	names("a-n")
	answer(http.StatusFound, "")
	says("302 Found")
	answer(http.StatusOK, "kind: [")
	says("yaml")
	answer(http.StatusOK, "kind: PodList\napiVersion: v1\nitems:\n- {metadata: {name: a}, spec: {containers: [{name: c, image: x}]}}\n- {metadata: {name: b}, spec: {containers: [{name: c, image: x}]}}\n")
	names("a-n", "b-n")
	answer(http.StatusOK, "kind: PodList\napiVersion: v1\nitems:\n- {metadata: {name: a}, spec: {containers: [{name: c, image: x}]}}\n- {metadata: {name: a}, spec: {containers: [{name: c, image: x}]}}\n")
	says("two pods are named /a")
}
