package proxy

import (
	"runtime"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/component-base/metrics/legacyregistry"
	_ "k8s.io/component-base/metrics/prometheus/restclient" // counts requests to the API server

	"github.com/sextant-k8s/sextant/pkg/proxy/desired"
)

// metrics are upstream's. Both families are written together: times are told as one.
type metrics struct {
	registry                  *prometheus.Registry
	sync, full, partial       *prometheus.HistogramVec
	program, forgot           *prometheus.HistogramVec
	last, queued              *prometheus.GaugeVec
	rules, wrote, noLocal     *prometheus.GaugeVec
	failures, mended, cleanup *prometheus.CounterVec
	flows                     *prometheus.CounterVec
	healthz, livez            *prometheus.CounterVec
	lonely                    [2][2]int // ports that a policy leaves without an endpoint here, by family; internal, external
}

// newMetrics makes them for a mode; changes answers those of Services and EndpointSlices, all that were seen and those that wait; dropped counts packets, and
// may begin anew.
func newMetrics(mode, version string, changes func() (all, pending seen), dropped func() uint64) *metrics {
	m := &metrics{registry: prometheus.NewRegistry()}
	labels := []string{"ip_family"}
	histogram := func(name, help string, buckets []float64) *prometheus.HistogramVec {
		h := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "kubeproxy_" + name, Help: help, Buckets: buckets}, labels)
		m.registry.MustRegister(h)
		return h
	}
	gauge := func(name, help string, more ...string) *prometheus.GaugeVec {
		g := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "kubeproxy_" + name, Help: help}, append(labels[:1:1], more...))
		m.registry.MustRegister(g)
		return g
	}
	counter := func(name, help, label string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "kubeproxy_" + name, Help: help}, []string{label})
		m.registry.MustRegister(c)
		return c
	}
	watched := func(kind, what string, of func(seen) uint64) {
		m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "kubeproxy_sync_proxy_rules_" + kind + "_changes_total", Help: "Changes of " + what + " seen."},
			func() float64 { all, _ := changes(); return float64(of(all)) }))
		m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "kubeproxy_sync_proxy_rules_" + kind + "_changes_pending", Help: "Changes of " + what + " that wait."},
			func() float64 { _, waiting := changes(); return float64(of(waiting)) }))
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
	m.wrote = gauge("sync_proxy_rules_iptables_last", "Rules of the last write.", "table")
	m.noLocal = gauge("sync_proxy_rules_no_local_endpoints_total", "Ports with endpoints, of which a traffic policy leaves none on this node.", "traffic_policy")
	m.flows = counter("conntrack_reconciler_deleted_entries_total", "Stale flows deleted.", labels[0])
	m.healthz = counter("proxy_healthz_total", "Answers of /healthz, by code.", "code")
	m.livez = counter("proxy_livez_total", "Answers of /livez, by code.", "code")
	const failed = "Writes that failed."
	if mode == "nftables" {
		m.failures = counter("sync_proxy_rules_nftables_sync_failures_total", failed, labels[0])
		m.cleanup = counter("sync_proxy_rules_nftables_cleanup_failures_total", "Removals of what another mode left that failed.", labels[0])
	} else {
		m.failures = counter("sync_proxy_rules_iptables_restore_failures_total", failed, labels[0])
		m.mended = counter("sync_proxy_rules_iptables_partial_restore_failures_total", "Writes of changes that failed, and were followed by one of everything.", labels[0])
	}
	if mode == "iptables" {
		packets := func(name, help string, count func() float64) {
			m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "kubeproxy_iptables_" + name, Help: help}, count))
		}
		sum := &rising{of: dropped}
		packets("ct_state_invalid_dropped_packets_total", "Packets that were not forwarded, for being outside of their connection's window.", sum.read)
		packets("localhost_nodeports_accepted_packets_total", "Packets to node ports at 127.0.0.0/8 that were let through: none ever is.", func() float64 { return 0 })
	}
	watched("service", "Services", func(n seen) uint64 { return n.services })
	watched("endpoint", "EndpointSlices", func(n seen) uint64 { return n.endpoints })
	build := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "kubernetes_build_info", Help: "What this is."}, []string{"git_version", "major", "minor", "go_version", "platform", "compiler"})
	build.WithLabelValues(version, "1", "37", runtime.Version(), runtime.GOOS+"/"+runtime.GOARCH, runtime.Compiler).Set(1)
	m.registry.MustRegister(build)
	return m
}

// gatherer answers all that the daemon serves: the library's own tell of the process and of its requests to the API server.
func (m *metrics) gatherer() prometheus.Gatherer {
	return prometheus.Gatherers{m.registry, legacyregistry.DefaultGatherer}
}

// rising makes a counter of one that begins anew at times.
type rising struct {
	of func() uint64

	mu         sync.Mutex
	last, gone uint64
}

func (r *rising) read() float64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.of()
	if now < r.last {
		r.gone += r.last
	}
	r.last = now
	return float64(r.gone + now)
}

// words are the families' names.
var words = [2]string{"IPv4", "IPv6"}

// synced tells of a write.
func (m *metrics) synced(began, done time.Time, triggers []time.Time, w desired.Written, full bool) {
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
	for at, n := range w.Held {
		m.rules.WithLabelValues(words[desired.Family(at.V6)], at.Table).Set(float64(n))
	}
	for at, n := range w.Last {
		m.wrote.WithLabelValues(words[desired.Family(at.V6)], at.Table).Set(float64(n))
	}
	for f, n := range w.Mended {
		if m.mended != nil && n > 0 {
			m.mended.WithLabelValues(words[f]).Add(float64(n))
		}
	}
}

// changed tells of Services' ports: which of them a policy leaves alone on this node.
func (m *metrics) changed(changes []desired.Change) {
	count := func(ports []desired.Port, by int) {
		for i := range ports {
			p := &ports[i]
			if p.InnerLocal && len(p.Inner) == 0 && len(p.Any) > 0 {
				m.lonely[desired.Family(p.V6())][0] += by
			}
			if p.OuterLocal && len(p.Outer) == 0 && len(p.Any) > 0 {
				m.lonely[desired.Family(p.V6())][1] += by
			}
		}
	}
	for _, c := range changes {
		count(c.Before, -1)
		count(c.After, 1)
	}
	for f, of := range m.lonely {
		m.noLocal.WithLabelValues(words[f], "internal").Set(float64(of[0]))
		m.noLocal.WithLabelValues(words[f], "external").Set(float64(of[1]))
	}
}
