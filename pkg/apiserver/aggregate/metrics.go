package aggregate

import (
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/runtime/schema"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
)

var (
	unavailable = prometheus.NewDesc("aggregator_unavailable_apiservice", "1 for an APIService that cannot be reached, else 0.", []string{"name"}, nil)
	lost        = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "aggregator_unavailable_apiservice_total", Help: "How often an APIService was lost, by reason.",
	}, []string{"name", "reason"})
)

// Describe names the metrics.
func (r *Room) Describe(ch chan<- *prometheus.Desc) {
	ch <- unavailable
	lost.Describe(ch)
}

// Collect tells which APIServices can be reached: those of this server always.
func (r *Room) Collect(ch chan<- prometheus.Metric) {
	state := map[schema.GroupVersion]float64{}
	for gv := range r.own {
		if gv.Group != "" {
			state[gv] = 0
		}
	}
	r.mu.RLock()
	for gv, b := range r.backends {
		b.mu.Lock()
		state[gv] = 1
		if b.available {
			state[gv] = 0
		}
		b.mu.Unlock()
	}
	r.mu.RUnlock()
	for gv, v := range state {
		ch <- prometheus.MustNewConstMetric(unavailable, prometheus.GaugeValue, v, gv.Version+"."+gv.Group)
	}
	ch <- prometheus.MustNewConstMetric(unavailable, prometheus.GaugeValue, 0, "v1.")
	lost.Collect(ch)
}

func isAvailable(s *apiregistrationv1.APIService) bool {
	return slices.ContainsFunc(s.Status.Conditions, func(c apiregistrationv1.APIServiceCondition) bool {
		return c.Type == apiregistrationv1.Available && c.Status == apiregistrationv1.ConditionTrue
	})
}
