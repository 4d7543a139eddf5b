package server

import (
	"bytes"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sextant-k8s/sextant/pkg/apiserver/admission"
	"github.com/sextant-k8s/sextant/pkg/apiserver/audit"
	"github.com/sextant-k8s/sextant/pkg/apiserver/authn"
	"github.com/sextant-k8s/sextant/pkg/apiserver/authz"
	"github.com/sextant-k8s/sextant/pkg/apiserver/engine"
	"github.com/sextant-k8s/sextant/pkg/apiserver/policy"
	"github.com/sextant-k8s/sextant/pkg/apiserver/request"
	"github.com/sextant-k8s/sextant/pkg/apiserver/store"
	"github.com/sextant-k8s/sextant/pkg/apiserver/tokens"
	"github.com/sextant-k8s/sextant/pkg/apiserver/webhook"
)

// metrics are what the server counts, under upstream's names.
type metrics struct {
	http.Handler
	registry     *prometheus.Registry
	requests     *prometheus.CounterVec
	duration     *prometheus.HistogramVec
	sli          *prometheus.HistogramVec
	sizes        *prometheus.HistogramVec
	inflight     *prometheus.GaugeVec
	streams      *prometheus.GaugeVec
	terminations *prometheus.CounterVec
	complaints   complaints

	// serves tells whether a resource, and the subresource if there is one, is served: what is not is counted under no
	// name of the client's choosing.
	serves func(gvr schema.GroupVersionResource, sub string) bool
	known  sync.Map // series by seriesKey: looking up nine labels each time would cost more than counting
}

// seriesKey is the labels of a request.
type seriesKey struct {
	verb, dryRun, group, version, resource, sub, scope, client string
	code                                                       int
}

// series are what a request is counted in.
type series struct {
	requests             prometheus.Counter
	duration, sli, sizes prometheus.Observer
}

var (
	requestLabels = []string{"verb", "group", "version", "resource", "subresource", "scope", "component"}
	requestTimes  = []float64{0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1, 1.25, 1.5, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 45, 60}
	sliTimes      = []float64{0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1, 1.25, 1.5, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 45, 60}
)

func newMetrics(build string) *metrics {
	reg := prometheus.NewRegistry()
	m := &metrics{
		registry: reg,
		serves:   func(schema.GroupVersionResource, string) bool { return false },
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "apiserver_request_total", Help: "Requests served, by verb, resource and code.",
		}, append([]string{"dry_run", "code", "system_client"}, requestLabels...)),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "apiserver_request_duration_seconds", Help: "How long requests took, streams apart.", Buckets: requestTimes,
		}, append([]string{"dry_run"}, requestLabels...)),
		sli: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "apiserver_request_sli_duration_seconds", Help: "How long requests took without the time they waited for webhooks or their turn.", Buckets: sliTimes,
		}, requestLabels),
		sizes: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "apiserver_response_sizes", Help: "Bytes of answers to reads.", Buckets: prometheus.ExponentialBuckets(1000, 10, 7),
		}, requestLabels),
		inflight: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "apiserver_current_inflight_requests", Help: "Requests being served, streams apart.",
		}, []string{"request_kind"}),
		streams: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "apiserver_longrunning_requests", Help: "Watches and streams being served.",
		}, requestLabels),
		terminations: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "apiserver_request_terminations_total", Help: "Requests turned away to protect the server.",
		}, append([]string{"code"}, requestLabels...)),
	}
	m.complaints.tls = prometheus.NewCounter(prometheus.CounterOpts{Name: "apiserver_tls_handshake_errors_total", Help: "Connections that did not come to be."})
	info := prometheus.NewGauge(prometheus.GaugeOpts{Name: "kubernetes_build_info", Help: "The version.", ConstLabels: prometheus.Labels{
		"git_version": Version(build).GitVersion, "major": "1", "minor": "37", "go_version": Version(build).GoVersion, "platform": Version(build).Platform,
	}})
	info.Set(1)
	reg.MustRegister(m.requests, m.duration, m.sli, m.sizes, m.inflight, m.streams, m.terminations, m.complaints.tls, info,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	for _, room := range [][]prometheus.Collector{audit.Collectors(), admission.Collectors(), webhook.Collectors(), policy.Collectors(), authn.Collectors(), authz.Collectors(), engine.Collectors(), tokens.Collectors()} {
		reg.MustRegister(room...)
	}
	m.Handler = promhttp.HandlerFor(reg, promhttp.HandlerOpts{})
	return m
}

// of takes in what the rooms of a server count. Each server of a process tells the sums of all where a room counts for itself.
func (m *metrics) of(s *Server) {
	m.serves = s.engine.Serves
	for _, etcd := range s.stores() {
		etcd.Name(func(key string) (group, resource string, ok bool) {
			if res := s.cache.ResourceOf(key); res != nil {
				return res.Def.Group, res.Def.Resource, true
			}
			return "", "", false
		})
	}
	m.registry.MustRegister(store.Metrics(s.stores()), s.cache, s.aggregate)
}

// add adds what a room counts.
func (m *metrics) add(c prometheus.Collector) { m.registry.MustRegister(c) }

// start counts a request in; the function it returns counts it out. apart is how long it waited for others.
func (m *metrics) start(i *request.Info, r *http.Request) func(rec *recorder, took, apart time.Duration) {
	k := m.key(i, r)
	if !i.IsResource {
		return func(rec *recorder, _, _ time.Duration) {
			k.code = rec.status()
			m.series(k).requests.Inc()
		}
	}
	if i.LongRunning() {
		g := m.streams.WithLabelValues(k.labels()...)
		g.Inc()
		return func(rec *recorder, _, _ time.Duration) {
			g.Dec()
			k.code = rec.status()
			m.series(k).requests.Inc()
		}
	}
	which := "readOnly"
	if i.Mutating() {
		which = "mutating"
	}
	g := m.inflight.WithLabelValues(which)
	g.Inc()
	return func(rec *recorder, took, apart time.Duration) {
		g.Dec()
		k.code = rec.status()
		s := m.series(k)
		s.requests.Inc()
		s.duration.Observe(took.Seconds())
		s.sli.Observe(max(took-apart, 0).Seconds())
		if k.verb == "GET" || k.verb == "LIST" {
			s.sizes.Observe(float64(rec.size))
		}
		if k.code == http.StatusTooManyRequests || k.code == http.StatusGatewayTimeout {
			m.terminations.WithLabelValues(append([]string{strconv.Itoa(k.code)}, k.labels()...)...).Inc()
		}
	}
}

// systemClients are the programs that are told apart from users'.
var systemClients = map[string]bool{"kube-apiserver": true, "kube-controller-manager": true, "kube-scheduler": true}

// key answers the labels of a request.
func (m *metrics) key(i *request.Info, r *http.Request) seriesKey {
	k := seriesKey{verb: metricVerb(i, r)}
	if agent, _, ok := strings.Cut(r.UserAgent(), "/"); ok && systemClients[agent] {
		k.client = agent
	}
	if !i.IsResource {
		return k
	}
	if strings.Contains(r.URL.RawQuery, "dryRun=") {
		k.dryRun = "All" // the only one there is
	}
	switch k.scope = "cluster"; {
	case i.Name != "":
		k.scope = "resource"
	case i.Namespace != "":
		k.scope = "namespace"
	}
	if m.serves(i.GVR, i.Sub) {
		k.group, k.version, k.resource, k.sub = i.GVR.Group, i.GVR.Version, i.GVR.Resource, i.Sub
	}
	return k
}

func (k *seriesKey) labels() []string {
	return []string{k.verb, k.group, k.version, k.resource, k.sub, k.scope, "apiserver"}
}

func (m *metrics) series(k seriesKey) *series {
	if s, ok := m.known.Load(k); ok {
		return s.(*series)
	}
	l := k.labels()
	s := &series{
		requests: m.requests.WithLabelValues(append([]string{k.dryRun, strconv.Itoa(k.code), k.client}, l...)...),
	}
	if k.scope != "" {
		s.duration = m.duration.WithLabelValues(append([]string{k.dryRun}, l...)...)
		s.sli, s.sizes = m.sli.WithLabelValues(l...), m.sizes.WithLabelValues(l...)
	}
	known, _ := m.known.LoadOrStore(k, s)
	return known.(*series)
}

// metricVerb is the verb as upstream's metrics write it.
func metricVerb(i *request.Info, r *http.Request) string {
	switch i.Verb {
	case "create":
		return "POST"
	case "update":
		return "PUT"
	case "patch":
		if strings.HasPrefix(r.Header.Get("Content-Type"), "application/apply-patch") {
			return "APPLY"
		}
		return "PATCH"
	case "get", "list", "watch", "delete", "deletecollection", "post", "put", "head", "options", "connect", "trace":
		return strings.ToUpper(i.Verb)
	}
	return "other"
}

// complaints takes what net/http has to say of connections: it is logged for those who look closely, and handshakes that failed
// are counted.
type complaints struct{ tls prometheus.Counter }

// Write takes one line.
func (c complaints) Write(line []byte) (int, error) {
	if bytes.Contains(line, []byte("TLS handshake error")) {
		c.tls.Inc()
	}
	slog.Debug("connection trouble", "what", string(bytes.TrimSpace(line)))
	return len(line), nil
}
