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

// metrics are upstream's, as far as there is something to say.
type metrics struct {
	registry *prometheus.Registry
	sync     *prometheus.HistogramVec
	program  *prometheus.HistogramVec
	last     *prometheus.GaugeVec
	queued   *prometheus.GaugeVec
	rules    *prometheus.GaugeVec
	failures *prometheus.CounterVec
	services prometheus.Counter
	ends     prometheus.Counter
}

func newMetrics() *metrics {
	family := []string{"ip_family"}
	buckets := prometheus.ExponentialBuckets(0.001, 2, 15)
	m := &metrics{
		registry: prometheus.NewRegistry(),
		sync:     prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "kubeproxy_sync_proxy_rules_duration_seconds", Help: "Time of a write of the kernel's tables.", Buckets: buckets}, family),
		program:  prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "kubeproxy_network_programming_duration_seconds", Help: "Time from the first change seen to the kernel following.", Buckets: buckets}, family),
		last:     prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "kubeproxy_sync_proxy_rules_last_timestamp_seconds", Help: "When the tables were last written."}, family),
		queued:   prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds", Help: "When a change was last seen."}, family),
		rules:    prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "kubeproxy_sync_proxy_rules_iptables_total", Help: "Rules held."}, []string{"ip_family", "table"}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "kubeproxy_sync_proxy_rules_iptables_restore_failures_total", Help: "Writes that failed."}, family),
		services: prometheus.NewCounter(prometheus.CounterOpts{Name: "kubeproxy_sync_proxy_rules_service_changes_total", Help: "Changes of Services seen."}),
		ends:     prometheus.NewCounter(prometheus.CounterOpts{Name: "kubeproxy_sync_proxy_rules_endpoint_changes_total", Help: "Changes of EndpointSlices seen."}),
	}
	m.registry.MustRegister(m.sync, m.program, m.last, m.queued, m.rules, m.failures, m.services, m.ends)
	return m
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
	s := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}
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
		mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	}
	return mux
}
