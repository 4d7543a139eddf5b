package admission

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

var (
	buckets     = []float64{0.005, 0.025, 0.1, 0.5, 1, 2.5}
	controllers = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "apiserver_admission_controller_admission_duration_seconds", Help: "How long each admission plugin took.", Buckets: buckets,
	}, []string{"name", "operation", "rejected", "type"})
	steps = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "apiserver_admission_step_admission_duration_seconds", Help: "How long all admission plugins of a step took.", Buckets: buckets,
	}, []string{"operation", "rejected", "type"})
)

// Collectors are what admission counts.
func Collectors() []prometheus.Collector { return []prometheus.Collector{controllers, steps} }

// step is one of the two rounds of asking.
type step int

const (
	mutating step = iota
	validating
)

var (
	verbs     = [...]Verb{Create, Update, Delete, Connect}
	stepNames = [...]string{mutating: "admit", validating: "validate"}
	yesNo     = [...]string{"false", "true"}
)

// meter is the series of one plugin, or of a whole step, looked up once: by verb, step, and whether it refused.
type meter [len(verbs)][len(stepNames)][len(yesNo)]prometheus.Observer

var stepMeter = newMeter(func(v Verb, s, rejected string) prometheus.Observer {
	return steps.WithLabelValues(string(v), rejected, s)
})

func newMeter(find func(v Verb, step, rejected string) prometheus.Observer) *meter {
	m := &meter{}
	for v := range verbs {
		for s := range stepNames {
			for r := range yesNo {
				m[v][s][r] = find(verbs[v], stepNames[s], yesNo[r])
			}
		}
	}
	return m
}

// Metered answers a chain of which each plugin is timed.
func Metered(c Chain) Chain {
	out := make(Chain, len(c))
	for i, p := range c {
		if p.Name != "" {
			p.meter = newMeter(func(v Verb, s, rejected string) prometheus.Observer {
				return controllers.WithLabelValues(p.Name, string(v), rejected, s)
			})
		}
		out[i] = p
	}
	return out
}

// saw notes how long somebody took.
func (m *meter) saw(v Verb, s step, took time.Duration, err error) {
	if m == nil {
		return
	}
	rejected := 0
	if err != nil {
		rejected = 1
	}
	for i := range verbs {
		if verbs[i] == v {
			m[i][s][rejected].Observe(took.Seconds())
		}
	}
}
