package authn

import (
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apiserver/pkg/authentication/authenticator"
)

var (
	certificateLife = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "apiserver_client_certificate_expiration_seconds", Help: "How long the client certificates of requests are still valid.",
		Buckets: []float64{0, 1800, 3600, 7200, 21600, 43200, 86400, 172800, 345600, 604800, 2592000, 7776000, 15552000, 31104000},
	})
	attempts = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "authentication_attempts", Help: "Requests by what authentication made of them."}, []string{"result"})
	lasted   = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "authentication_duration_seconds", Help: "How long authentication took.", Buckets: prometheus.ExponentialBuckets(0.001, 2, 15),
	}, []string{"result"})
	users = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "authenticated_user_requests", Help: "Requests by their user, strangers together."}, []string{"username"})
)

// Collectors are what this room counts.
func Collectors() []prometheus.Collector {
	return []prometheus.Collector{certificateLife, attempts, lasted, users}
}

// outcome is the series of one result, looked up once.
type outcome struct {
	attempts prometheus.Counter
	lasted   prometheus.Observer
}

func outcomeOf(result string) outcome {
	return outcome{attempts.WithLabelValues(result), lasted.WithLabelValues(result)}
}

var success, failure, faulty = outcomeOf("success"), outcomeOf("failure"), outcomeOf("error")

// count notes what came of a request's credentials.
func count(r *authenticator.Response, ok bool, err error, begun time.Time) {
	o := failure
	switch {
	case err != nil:
		o = faulty
	case ok:
		o = success
		users.WithLabelValues(shortName(r.User.GetName())).Inc()
	}
	o.attempts.Inc()
	o.lasted.Observe(time.Since(begun).Seconds())
}

// shortName keeps the names that clusters have, and calls all others alike.
func shortName(name string) string {
	switch {
	case name == "admin" || name == "client" || name == "kube_proxy" || name == "kubelet" || name == "system:serviceaccount:kube-system:default":
		return name
	case strings.Contains(name, "@"):
		return "email_id"
	}
	return "other"
}
