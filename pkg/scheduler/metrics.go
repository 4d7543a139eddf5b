package scheduler

import (
	"github.com/prometheus/client_golang/prometheus"
)

// metrics are upstream's, as far as there is something to say.
type metrics struct {
	registry  *prometheus.Registry
	attempts  *prometheus.CounterVec
	duration  *prometheus.HistogramVec
	algorithm prometheus.Histogram
	sli       *prometheus.HistogramVec
	tries     prometheus.Histogram
	pending   *prometheus.GaugeVec
	cache     *prometheus.GaugeVec
	preempted prometheus.Counter
	victims   prometheus.Histogram
}

func newMetrics() *metrics {
	buckets := prometheus.ExponentialBuckets(0.001, 2, 15)
	m := &metrics{
		registry:  prometheus.NewRegistry(),
		attempts:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: "scheduler_schedule_attempts_total", Help: "Attempts to schedule pods, by result."}, []string{"profile", "result"}),
		duration:  prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "scheduler_scheduling_attempt_duration_seconds", Help: "Time of an attempt, deciding and binding.", Buckets: buckets}, []string{"profile", "result"}),
		algorithm: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "scheduler_scheduling_algorithm_duration_seconds", Help: "Time of a decision.", Buckets: buckets}),
		sli:       prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "scheduler_pod_scheduling_sli_duration_seconds", Help: "Time from first sight to bound.", Buckets: prometheus.ExponentialBuckets(0.01, 2, 20)}, []string{"attempts"}),
		tries:     prometheus.NewHistogram(prometheus.HistogramOpts{Name: "scheduler_pod_scheduling_attempts", Help: "Attempts it took to schedule a pod.", Buckets: prometheus.ExponentialBuckets(1, 2, 5)}),
		pending:   prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "scheduler_pending_pods", Help: "Pods waiting, by part of the queue."}, []string{"queue"}),
		cache:     prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "scheduler_cache_size", Help: "Nodes and pods in the table."}, []string{"type"}),
		preempted: prometheus.NewCounter(prometheus.CounterOpts{Name: "scheduler_preemption_attempts_total", Help: "Times pods were evicted for another."}),
		victims:   prometheus.NewHistogram(prometheus.HistogramOpts{Name: "scheduler_preemption_victims", Help: "Pods evicted at a time.", Buckets: prometheus.ExponentialBuckets(1, 2, 7)}),
	}
	m.registry.MustRegister(m.attempts, m.duration, m.algorithm, m.sli, m.tries, m.pending, m.cache, m.preempted, m.victims)
	return m
}
