package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sextant-k8s/sextant/pkg/apiserver/store"
)

// check is one named condition of health.
type check struct {
	name string
	// live is whether a restart could help: such a check counts for livez too.
	live bool
	ok   func(context.Context) error
}

// health answers /healthz, /livez and /readyz.
type health struct {
	checks   []check
	stopping atomic.Bool
}

func newHealth(s *Server) *health {
	h := &health{}
	etcd := func(at *store.Store, patience time.Duration) func(context.Context) error {
		return func(ctx context.Context) error {
			ctx, cancel := context.WithTimeout(ctx, patience)
			defer cancel()
			if err := at.Ping(ctx); err != nil {
				return fmt.Errorf("etcd cannot be reached: %w", err)
			}
			return nil
		}
	}
	h.checks = []check{
		{"ping", true, func(context.Context) error { return nil }},
		{"log", true, func(context.Context) error { return nil }},
		{"etcd", true, etcd(s.store, s.c.EtcdHealthTimeout)},
		{"etcd-readiness", false, etcd(s.store, s.c.EtcdReadyTimeout)},
		{"informer-sync", false, func(context.Context) error {
			for _, etcd := range s.cache.All() {
				if !etcd.Loaded() {
					return errors.New("etcd has not been read yet")
				}
			}
			return nil
		}},
		{"poststarthook/crd-informer-synced", true, func(context.Context) error {
			select {
			case <-s.custom.Ready():
				return nil
			default:
				return errors.New("not finished")
			}
		}},
		{"poststarthook/rbac/bootstrap-roles", true, func(context.Context) error {
			if !s.bootstrap.Done() {
				return errors.New("not finished")
			}
			return nil
		}},
		{"shutdown", false, func(context.Context) error {
			if h.stopping.Load() {
				return errors.New("process is shutting down")
			}
			return nil
		}},
	}
	for n, a := range s.apart {
		h.checks = append(h.checks, check{fmt.Sprintf("etcd-override-%d", n), true, etcd(a.store, s.c.EtcdHealthTimeout)},
			check{fmt.Sprintf("etcd-override-readiness-%d", n), false, etcd(a.store, s.c.EtcdReadyTimeout)})
	}
	if s.cipher != nil {
		h.checks = append(h.checks, check{"kms-providers", true, func(context.Context) error { return s.cipher.Healthy() }})
	}
	return h
}

// serve runs the checks of one endpoint, or the one named below it, all at once.
func (h *health) serve(w http.ResponseWriter, r *http.Request, endpoint string) {
	q := r.URL.Query()
	only := strings.Trim(strings.TrimPrefix(r.URL.Path, "/"+endpoint), "/")
	var asked []check
	for _, c := range h.checks {
		if only != "" && c.name != only || only == "" && endpoint == "livez" && !c.live || strings.HasPrefix(c.name, "etcd-") && strings.Contains(c.name, "readiness") && endpoint != "readyz" || c.name == "shutdown" && endpoint != "readyz" {
			continue
		}
		asked = append(asked, c)
	}
	found := len(asked) > 0
	excluded := func(c check) bool { return slices.Contains(q["exclude"], c.name) }
	errs := make([]error, len(asked))
	var wg sync.WaitGroup
	for n, c := range asked {
		if !excluded(c) {
			wg.Go(func() { errs[n] = c.ok(r.Context()) })
		}
	}
	wg.Wait()
	var out strings.Builder
	failed := false
	for n, c := range asked {
		switch {
		case excluded(c):
			_, _ = fmt.Fprintf(&out, "[+]%s excluded: ok\n", c.name)
		case errs[n] != nil:
			failed = true
			_, _ = fmt.Fprintf(&out, "[-]%s failed: reason withheld\n", c.name)
		default:
			_, _ = fmt.Fprintf(&out, "[+]%s ok\n", c.name)
		}
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Cache-Control", "no-cache, private")
	_, verbose := q["verbose"]
	switch {
	case !found:
		http.NotFound(w, r)
	case failed:
		w.WriteHeader(http.StatusInternalServerError)
		_, _ = fmt.Fprintf(w, "%s%s check failed\n", out.String(), endpoint)
	case verbose:
		_, _ = fmt.Fprintf(w, "%s%s check passed\n", out.String(), endpoint)
	default:
		_, _ = fmt.Fprint(w, "ok")
	}
}
