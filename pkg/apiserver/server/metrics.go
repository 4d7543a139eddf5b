package server

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/sextant-k8s/sextant/pkg/apiserver/audit"
	"github.com/sextant-k8s/sextant/pkg/apiserver/request"
)

// metrics are what the server counts, under upstream's names.
type metrics struct {
	http.Handler
	registry *prometheus.Registry
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
	inflight *prometheus.GaugeVec
	streams  *prometheus.GaugeVec
}

func newMetrics(build string) *metrics {
	reg := prometheus.NewRegistry()
	m := &metrics{
		registry: reg,
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "apiserver_request_total", Help: "Requests served, by verb, resource and code.",
		}, []string{"verb", "dry_run", "group", "version", "resource", "subresource", "scope", "component", "code"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "apiserver_request_duration_seconds", Help: "How long requests took, streams apart.",
			Buckets: []float64{0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1, 1.25, 1.5, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 45, 60},
		}, []string{"verb", "dry_run", "group", "version", "resource", "subresource", "scope", "component"}),
		inflight: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "apiserver_current_inflight_requests", Help: "Requests being served, streams apart.",
		}, []string{"request_kind"}),
		streams: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "apiserver_longrunning_requests", Help: "Watches and streams being served.",
		}, []string{"verb", "group", "version", "resource", "subresource", "scope", "component"}),
	}
	info := prometheus.NewGauge(prometheus.GaugeOpts{Name: "kubernetes_build_info", Help: "The version.", ConstLabels: prometheus.Labels{
		"git_version": Version(build).GitVersion, "major": "1", "minor": "37", "go_version": Version(build).GoVersion, "platform": Version(build).Platform,
	}})
	info.Set(1)
	reg.MustRegister(m.requests, m.duration, m.inflight, m.streams, info, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	reg.MustRegister(audit.Collectors()...)
	m.Handler = promhttp.HandlerFor(reg, promhttp.HandlerOpts{})
	return m
}

// add adds what a room counts.
func (m *metrics) add(c prometheus.Collector) { m.registry.MustRegister(c) }

// start counts a request in; the function it returns counts it out.
func (m *metrics) start(i *request.Info) func(code int, took time.Duration) {
	if !i.IsResource {
		return func(code int, _ time.Duration) {
			m.requests.WithLabelValues(strings.ToUpper(i.Verb), "", "", "", "", "", "", "apiserver", strconv.Itoa(code)).Inc()
		}
	}
	verb, scope := metricVerb(i), "cluster"
	switch {
	case i.Name != "":
		scope = "resource"
	case i.Namespace != "":
		scope = "namespace"
	}
	l := []string{verb, "", i.GVR.Group, i.GVR.Version, i.GVR.Resource, i.Sub, scope, "apiserver"}
	if i.LongRunning() {
		g := m.streams.WithLabelValues(verb, i.GVR.Group, i.GVR.Version, i.GVR.Resource, i.Sub, scope, "apiserver")
		g.Inc()
		return func(code int, _ time.Duration) {
			g.Dec()
			m.requests.WithLabelValues(append(l, strconv.Itoa(code))...).Inc()
		}
	}
	which := "readOnly"
	if i.Mutating() {
		which = "mutating"
	}
	g := m.inflight.WithLabelValues(which)
	g.Inc()
	return func(code int, took time.Duration) {
		g.Dec()
		// What is not served is counted under no name of the client's choosing.
		if code == http.StatusNotFound && i.Name == "" {
			l[2], l[3], l[4], l[5] = "", "", "", ""
		}
		m.requests.WithLabelValues(append(l, strconv.Itoa(code))...).Inc()
		m.duration.WithLabelValues(l...).Observe(took.Seconds())
	}
}

// metricVerb is the verb as upstream's metrics write it.
func metricVerb(i *request.Info) string {
	switch i.Verb {
	case "create":
		return "POST"
	case "update":
		return "PUT"
	}
	return strings.ToUpper(i.Verb)
}
