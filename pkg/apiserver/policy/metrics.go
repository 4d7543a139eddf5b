package policy

import (
	"errors"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	apiservercel "k8s.io/apiserver/pkg/cel"
)

var (
	buckets      = []float64{0.0000005, 0.001, 0.01, 0.1, 1}
	validateTime = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "apiserver_validating_admission_policy_check_duration_seconds", Help: "How long validations of policies took.", Buckets: buckets,
	}, []string{"enforcement_action", "error_type", "policy", "policy_binding"})
	validateCount = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "apiserver_validating_admission_policy_check_total", Help: "Validations of policies, by what followed.",
	}, []string{"enforcement_action", "error_type", "policy", "policy_binding"})
	mutateTime = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "apiserver_mutating_admission_policy_check_duration_seconds", Help: "How long mutations of policies took.", Buckets: buckets,
	}, []string{"error_type", "policy", "policy_binding"})
	mutateCount = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "apiserver_mutating_admission_policy_check_total", Help: "Mutations of policies.",
	}, []string{"error_type", "policy", "policy_binding"})
)

// Collectors are what this room counts.
func Collectors() []prometheus.Collector {
	return []prometheus.Collector{validateTime, validateCount, mutateTime, mutateCount}
}

// faultOf names what was wrong with an expression.
func faultOf(err error) string {
	switch {
	case err == nil:
		return "no_error"
	case errors.Is(err, apiservercel.ErrOutOfBudget):
		return "out_of_budget"
	case strings.Contains(err.Error(), "compilation error") || strings.Contains(err.Error(), "compile"):
		return "compile_error"
	}
	return "invalid_error"
}

// validated counts one validation. action is what followed: allow, deny, audit or warn.
func validated(e *evaluation, action string, err error, took time.Duration) {
	l := []string{action, faultOf(err), e.policy.name, e.binding.name}
	validateTime.WithLabelValues(l...).Observe(took.Seconds())
	validateCount.WithLabelValues(l...).Inc()
}

// mutated counts one mutation.
func mutated(policy, binding string, err error, took time.Duration) {
	l := []string{faultOf(err), policy, binding}
	mutateTime.WithLabelValues(l...).Observe(took.Seconds())
	mutateCount.WithLabelValues(l...).Inc()
}
