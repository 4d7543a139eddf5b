package runtime

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

var (
	reconciles = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "controller_reconcile_total", Help: "Reconciles, by controller and result."}, []string{"controller", "result"})
	durations  = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "workqueue_work_duration_seconds", Help: "How long one key took.", Buckets: prometheus.ExponentialBuckets(1e-5, 10, 8),
	}, []string{"name"})
)

// Metrics is the registry of what the runtime counts.
var Metrics = registry()

func registry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(reconciles, durations, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

func observe(name string, took time.Duration, err error) {
	result := "success"
	if err != nil {
		result = "error"
	}
	reconciles.WithLabelValues(name, result).Inc()
	durations.WithLabelValues(name).Observe(took.Seconds())
}
