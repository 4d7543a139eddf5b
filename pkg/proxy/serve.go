package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// readTimeout is how long a caller may take over its request's head.
const readTimeout = 10 * time.Second

// listen binds an address now, so that a busy port is told before anything starts.
func listen(flag, address string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("serve on %s: %w; choose another --%s", address, err, flag)
	}
	return l, nil
}

// serve answers on l until ctx ends.
func serve(ctx context.Context, l net.Listener, h http.Handler) error {
	s := &http.Server{Handler: h, ReadHeaderTimeout: readTimeout}
	stop := context.AfterFunc(ctx, func() { _ = s.Close() })
	defer stop()
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve: %w", err)
	}
	return nil
}

// healthRoutes answer load balancers: may this node have traffic, and is its proxy alive.
func (p *Proxy) healthRoutes() http.Handler {
	mux := http.NewServeMux()
	answer := func(eligible bool, asked *prometheus.CounterVec) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			h := p.health()
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("X-Content-Type-Options", "nosniff")
			code := http.StatusOK
			if !h.alive || eligible && !h.eligible {
				code = http.StatusServiceUnavailable
			}
			w.WriteHeader(code)
			asked.WithLabelValues(strconv.Itoa(code)).Inc()
			body := map[string]any{"lastUpdated": h.synced.String(), "currentTime": time.Now().String()}
			if eligible {
				body["nodeEligible"] = h.eligible
			}
			// A caller that has gone needs no answer.
			_ = json.NewEncoder(w).Encode(body)
		}
	}
	mux.Handle("/healthz", answer(true, p.metrics.healthz))
	mux.Handle("/livez", answer(false, p.metrics.livez))
	mux.HandleFunc("/version", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]string{"gitVersion": p.config.Version}) // a caller that has gone needs no answer
	})
	return mux
}

func (p *Proxy) metricRoutes() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/metrics", promhttp.HandlerFor(p.metrics.gatherer(), promhttp.HandlerOpts{}))
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "ok") })
	mux.HandleFunc("/proxyMode", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, p.config.Mode) })
	if p.config.Profiling {
		mux.HandleFunc("/debug/pprof/", pprof.Index)
		mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
		mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	}
	return mux
}
