package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// readTimeout is how long a caller may take over its request's head.
const readTimeout = 10 * time.Second

// metrics are upstream's, as far as there is something to say. Both families are written together and told as one.
type metrics struct {
	registry              *prometheus.Registry
	sync, full, partial   *prometheus.HistogramVec
	program, forgot       *prometheus.HistogramVec
	last, queued          *prometheus.GaugeVec
	rules                 *prometheus.GaugeVec
	failures, flows       *prometheus.CounterVec
	services, ends        prometheus.Counter
	countServ, countSlice uint64 // told so far; only the loop's
}

func newMetrics() *metrics {
	family := []string{"ip_family"}
	m := &metrics{registry: prometheus.NewRegistry()}
	histogram := func(name, help string, buckets []float64) *prometheus.HistogramVec {
		h := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "kubeproxy_" + name, Help: help, Buckets: buckets}, family)
		m.registry.MustRegister(h)
		return h
	}
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		g := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "kubeproxy_" + name, Help: help}, append(family, labels...))
		m.registry.MustRegister(g)
		return g
	}
	counter := func(name, help string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "kubeproxy_" + name, Help: help}, family)
		m.registry.MustRegister(c)
		return c
	}
	plain := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: "kubeproxy_" + name, Help: help})
		m.registry.MustRegister(c)
		return c
	}
	buckets := prometheus.ExponentialBuckets(0.001, 2, 15)
	m.sync = histogram("sync_proxy_rules_duration_seconds", "Time of a write of the kernel's tables.", buckets)
	m.full = histogram("sync_full_proxy_rules_duration_seconds", "Time of a write of all Services.", buckets)
	m.partial = histogram("sync_partial_proxy_rules_duration_seconds", "Time of a write of changed Services.", buckets)
	m.program = histogram("network_programming_duration_seconds", "Time from an endpoint's change to the kernel following.",
		append(append(prometheus.LinearBuckets(0.25, 0.25, 2), prometheus.LinearBuckets(1, 1, 59)...), prometheus.LinearBuckets(60, 5, 49)...))
	m.forgot = histogram("conntrack_reconciler_sync_duration_seconds", "Time of a look for stale flows.", buckets)
	m.last = gauge("sync_proxy_rules_last_timestamp_seconds", "When the tables were last written.")
	m.queued = gauge("sync_proxy_rules_last_queued_timestamp_seconds", "When a change was last seen.")
	m.rules = gauge("sync_proxy_rules_iptables_total", "Rules and elements held.", "table")
	m.failures = counter("sync_proxy_rules_iptables_restore_failures_total", "Writes that failed.")
	m.flows = counter("conntrack_reconciler_deleted_entries_total", "Stale flows deleted.")
	m.services = plain("sync_proxy_rules_service_changes_total", "Changes of Services seen.")
	m.ends = plain("sync_proxy_rules_endpoint_changes_total", "Changes of EndpointSlices seen.")
	return m
}

// changes tells what the watches have seen since the last call.
func (m *metrics) changes(s *state) {
	s.mu.Lock()
	services, ends := s.seen.services, s.seen.endpoints
	s.mu.Unlock()
	m.services.Add(float64(services - m.countServ))
	m.ends.Add(float64(ends - m.countSlice))
	m.countServ, m.countSlice = services, ends
}

// synced tells of a write.
func (m *metrics) synced(began, done time.Time, triggers []time.Time, rules int, full bool) {
	took := done.Sub(began).Seconds()
	m.sync.WithLabelValues(family).Observe(took)
	if full {
		m.full.WithLabelValues(family).Observe(took)
	} else {
		m.partial.WithLabelValues(family).Observe(took)
	}
	for _, at := range triggers {
		m.program.WithLabelValues(family).Observe(done.Sub(at).Seconds())
	}
	m.last.WithLabelValues(family).Set(float64(done.UnixNano()) / 1e9)
	m.rules.WithLabelValues(family, "all").Set(float64(rules))
}

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
	answer := func(eligible bool) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			h := p.health()
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("X-Content-Type-Options", "nosniff")
			if !h.alive || eligible && !h.eligible {
				w.WriteHeader(http.StatusServiceUnavailable)
			}
			body := map[string]any{"lastUpdated": h.synced.String(), "currentTime": time.Now().String()}
			if eligible {
				body["nodeEligible"] = h.eligible
			}
			// A caller that has gone needs no answer.
			_ = json.NewEncoder(w).Encode(body)
		}
	}
	mux.Handle("/healthz", answer(true))
	mux.Handle("/livez", answer(false))
	mux.HandleFunc("/version", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]string{"gitVersion": p.config.Version}) // a caller that has gone needs no answer
	})
	return mux
}

func (p *Proxy) metricRoutes() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/metrics", promhttp.HandlerFor(p.metrics.registry, promhttp.HandlerOpts{}))
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
