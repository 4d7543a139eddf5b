package audit

import "github.com/prometheus/client_golang/prometheus"

var (
	events = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "apiserver_audit_event_total", Help: "Audit events handed to a sink.",
	})
	lost = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "apiserver_audit_error_total", Help: "Audit events that a sink could not take.",
	}, []string{"plugin"})
)

// Collectors are what this room counts.
func Collectors() []prometheus.Collector { return []prometheus.Collector{events, lost} }

func counted(plugin string, kept, missed int) {
	events.Add(float64(kept))
	if missed > 0 {
		lost.WithLabelValues(plugin).Add(float64(missed))
	}
}
