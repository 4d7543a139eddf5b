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
	plugins    *prometheus.HistogramVec
	asked      *prometheus.CounterVec
	refusing   *prometheus.GaugeVec
	hints      *prometheus.HistogramVec
	inflight   *prometheus.GaugeVec

	evaluations map[*rules.Step]evaluation // not yet counted; the scheduler's lock guards them
}

// evaluation is how many pods of a profile the plugins of a class were asked about.
type evaluation struct {
	steps   []rules.Step
	profile string
	pods    float64
}

// mostEvaluations bounds how many are gathered before they are counted.
const mostEvaluations = 1024

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
	tiny := prometheus.ExponentialBuckets(0.00001, 1.5, 20)
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
		points:     prometheus.NewHistogramVec(histogram("scheduler_framework_extension_point_duration_seconds", "Time of an extension point for one pod; of those before binding, of one decision in ten.", prometheus.ExponentialBuckets(0.0001, 2, 16)), []string{"extension_point", "profile", "status"}),
		events:     prometheus.NewHistogramVec(histogram("scheduler_event_handling_duration_seconds", "Time to find whom an event wakes.", prometheus.ExponentialBuckets(0.0001, 2, 12)), []string{"event"}),
		plugins:    prometheus.NewHistogramVec(histogram("scheduler_plugin_execution_duration_seconds", "Time of a plugin at an extension point for one pod; of one decision in ten.", tiny), []string{"plugin", "extension_point", "status"}),
		asked:      counter("scheduler_plugin_evaluation_total", "Pods that a plugin had something to say of, by extension point.", "plugin", "extension_point", "profile"),
		refusing:   gauge("scheduler_unschedulable_pods", "Waiting pods that a plugin refuses; a pod counts for each such plugin.", "plugin", "profile"),
		hints:      prometheus.NewHistogramVec(histogram("scheduler_queueing_hint_execution_duration_seconds", "Time to find whether an event helps the pods that a plugin refused.", prometheus.ExponentialBuckets(0.00001, 2, 12)), []string{"plugin", "event", "hint"}),
		inflight:   gauge("scheduler_inflight_events", "Events kept for pods that are being decided.", "event"),

		evaluations: map[*rules.Step]evaluation{},

		authz: counter("authorization_attempts_total", "Requests to the port, by whether they are allowed.", "result"),
	}
	build := gauge("kubernetes_build_info", "What this binary is.", "build_date", "compiler", "git_commit", "git_tree_state", "git_version", "go_version", "major", "minor", "platform")
	build.WithLabelValues("", runtime.Compiler, "", "", Release+"-sextant-"+version, runtime.Version(), "1", "37", runtime.GOOS+"/"+runtime.GOARCH).Set(1)
	m.registry.MustRegister(m.attempts, m.duration, m.algorithm, m.sli, m.tries, m.pending, m.cache, m.goroutines, m.leader, m.incoming, m.flushed,
		m.preempted, m.victims, m.authn, m.authz, m.points, m.events, m.plugins, m.asked, m.refusing, m.hints, m.inflight, build)
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

// evaluated notes that the plugins of a class were asked once more. The scheduler's lock is held.
func (m *metrics) evaluated(profile string, steps []rules.Step) {
	if len(steps) == 0 {
		return
	}
	e, ok := m.evaluations[&steps[0]]
	if !ok && len(m.evaluations) >= mostEvaluations {
		m.settle()
	}
	m.evaluations[&steps[0]] = evaluation{steps, profile, e.pods + 1}
}

// settle counts what evaluated noted.
func (m *metrics) settle() {
	for _, e := range m.evaluations {
		for _, s := range e.steps {
			m.asked.WithLabelValues(s.Plugin, string(s.At), e.profile).Add(e.pods)
		}
	}
	clear(m.evaluations)
}

// measured notes what the plugins took in one decision, and their sum by extension point, and empties the meter.
func (m *metrics) measured(meter *rules.Meter, profile string, fits bool) {
	status := "Success"
	if !fits {
		status = "Unschedulable"
	}
	sums := map[rules.Point]int64{}
	for step, took := range meter.Took {
		m.plugins.WithLabelValues(step.Plugin, string(step.At), status).Observe(float64(took) / 1e9)
		sums[step.At] += took
	}
	clear(meter.Took)
	for at, took := range sums {
		m.points.WithLabelValues(string(at), profile, status).Observe(float64(took) / 1e9)
	}
}
