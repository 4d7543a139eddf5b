package scheduler

import (
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/component-base/metrics/legacyregistry"
	// The client libraries count their requests in the registry that upstream's daemons serve.
	_ "k8s.io/component-base/metrics/prometheus/restclient"

	"github.com/sextant-k8s/sextant/pkg/scheduler/rules"
)

// metrics are upstream's, as far as there is something to say.
type metrics struct {
	registry   *prometheus.Registry
	attempts   *prometheus.CounterVec
	duration   *prometheus.HistogramVec
	algorithm  prometheus.Histogram
	sli        *prometheus.HistogramVec
	tries      prometheus.Histogram
	pending    *prometheus.GaugeVec
	cache      *prometheus.GaugeVec
	goroutines *prometheus.GaugeVec
	leader     *prometheus.GaugeVec
	incoming   *prometheus.CounterVec
	flushed    prometheus.Counter
	preempted  prometheus.Counter
	victims    prometheus.Histogram
	authn      *prometheus.CounterVec
	authz      *prometheus.CounterVec
	points     *prometheus.HistogramVec
	events     *prometheus.HistogramVec
}

func newMetrics(version string) *metrics {
	counter := func(name, help string, by ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, by)
	}
	gauge := func(name, help string, by ...string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, by)
	}
	histogram := func(name, help string, buckets []float64) prometheus.HistogramOpts {
		return prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}
	}
	fine, coarse := prometheus.ExponentialBuckets(0.001, 2, 15), prometheus.ExponentialBuckets(0.01, 2, 20)
	m := &metrics{
		registry:  prometheus.NewRegistry(),
		attempts:  counter("scheduler_schedule_attempts_total", "Attempts to schedule pods, by result.", "profile", "result"),
		duration:  prometheus.NewHistogramVec(histogram("scheduler_scheduling_attempt_duration_seconds", "Time of an attempt, deciding and binding.", fine), []string{"profile", "result"}),
		algorithm: prometheus.NewHistogram(histogram("scheduler_scheduling_algorithm_duration_seconds", "Time of a decision.", fine)),
		sli:       prometheus.NewHistogramVec(histogram("scheduler_pod_scheduling_sli_duration_seconds", "Time from first sight to bound.", coarse), []string{"attempts"}),
		tries:     prometheus.NewHistogram(histogram("scheduler_pod_scheduling_attempts", "Attempts it took to schedule a pod.", prometheus.ExponentialBuckets(1, 2, 5))),
		pending:   gauge("scheduler_pending_pods", "Pods waiting, by part of the queue.", "queue"),
		cache:     gauge("scheduler_cache_size", "Nodes and pods in the table.", "type"),

		goroutines: gauge("scheduler_goroutines", "Goroutines by what they do.", "operation"),
		leader:     gauge("leader_election_master_status", "1 while this process holds the lease.", "name"),
		incoming:   counter("scheduler_queue_incoming_pods_total", "Pods that came into a part of the queue, by what brought them.", "event", "queue"),
		flushed:    prometheus.NewCounter(prometheus.CounterOpts{Name: "scheduler_pod_scheduled_after_flush_total", Help: "Pods tried again because they had waited too long for an event."}),
		preempted:  prometheus.NewCounter(prometheus.CounterOpts{Name: "scheduler_preemption_attempts_total", Help: "Times pods were evicted for another."}),
		victims:    prometheus.NewHistogram(histogram("scheduler_preemption_victims", "Pods evicted at a time.", prometheus.ExponentialBuckets(1, 2, 7))),
		authn:      counter("authentication_attempts", "Callers of the port, by whether they are known.", "result"),
		points:     prometheus.NewHistogramVec(histogram("scheduler_framework_extension_point_duration_seconds", "Time of an extension point for one pod.", prometheus.ExponentialBuckets(0.0001, 2, 16)), []string{"extension_point", "profile", "status"}),
		events:     prometheus.NewHistogramVec(histogram("scheduler_event_handling_duration_seconds", "Time to find whom an event wakes.", prometheus.ExponentialBuckets(0.0001, 2, 12)), []string{"event"}),
		authz:      counter("authorization_attempts_total", "Requests to the port, by whether they are allowed.", "result"),
	}
	build := gauge("kubernetes_build_info", "What this binary is.", "git_version", "go_version", "major", "minor", "platform")
	build.WithLabelValues(Release+"-sextant-"+version, runtime.Version(), "1", "37", runtime.GOOS+"/"+runtime.GOARCH).Set(1)
	m.registry.MustRegister(m.attempts, m.duration, m.algorithm, m.sli, m.tries, m.pending, m.cache, m.goroutines, m.leader, m.incoming, m.flushed,
		m.preempted, m.victims, m.authn, m.authz, m.points, m.events, build)
	return m
}

// gatherer answers all that is served: ours, and what the libraries count.
func (m *metrics) gatherer() prometheus.Gatherer {
	return prometheus.Gatherers{m.registry, legacyregistry.DefaultGatherer}
}

// point notes how long an extension point took.
func (m *metrics) point(at rules.Point, profile string, began time.Time, err error) {
	status := "Success"
	if err != nil {
		status = "Error"
	}
	m.points.WithLabelValues(string(at), profile, status).Observe(time.Since(began).Seconds())
}
