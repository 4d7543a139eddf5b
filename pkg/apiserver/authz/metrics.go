package authz

import (
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

var (
	attempts = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "authorization_attempts_total", Help: "Questions to the authorizers, by their answer."}, []string{"result"})
	lasted   = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "authorization_duration_seconds", Help: "How long the authorizers took.", Buckets: prometheus.ExponentialBuckets(0.001, 2, 15),
	}, []string{"result"})
	decisions = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "apiserver_authorization_decisions_total", Help: "Opinions of each authorizer.",
	}, []string{"decision", "name", "type"})
)

// Collectors are what this room counts.
func Collectors() []prometheus.Collector { return []prometheus.Collector{attempts, lasted, decisions} }

// outcome is the series of one result, looked up once.
type outcome struct {
	attempts prometheus.Counter
	lasted   prometheus.Observer
}

func outcomeOf(result string) outcome {
	return outcome{attempts.WithLabelValues(result), lasted.WithLabelValues(result)}
}

var allowed, denied, noOpinion, faulty = outcomeOf("allowed"), outcomeOf("denied"), outcomeOf("no-opinion"), outcomeOf("error")

func count(d authorizer.Decision, err error, begun time.Time) {
	o := noOpinion
	switch {
	case d == authorizer.DecisionAllow:
		o = allowed
	case err != nil:
		o = faulty
	case d == authorizer.DecisionDeny:
		o = denied
	}
	o.attempts.Inc()
	o.lasted.Observe(time.Since(begun).Seconds())
}

// counted is an authorizer whose opinions are counted.
type counted struct {
	authorizer.UnconditionalAuthorizer
	yes, no prometheus.Counter
}

// counting answers a counted authorizer; name "" stands for its type.
func counting(a authorizer.UnconditionalAuthorizer, kind, name string) counted {
	if name == "" || name == "default" && kind != "Webhook" {
		name = strings.ToLower(kind)
	}
	return counted{a, decisions.WithLabelValues("allowed", name, kind), decisions.WithLabelValues("denied", name, kind)}
}

func (c counted) tell(d authorizer.Decision) {
	switch {
	case c.yes == nil: // not of the configuration
	case d == authorizer.DecisionAllow:
		c.yes.Inc()
	case d == authorizer.DecisionDeny:
		c.no.Inc()
	}
}
