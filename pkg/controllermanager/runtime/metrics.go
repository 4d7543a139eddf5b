package runtime

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"k8s.io/component-base/metrics/legacyregistry"

	// They put the counters of queues, clients and elections into the registry, under the names that dashboards know.
	_ "k8s.io/component-base/metrics/prometheus/clientgo/leaderelection"
	_ "k8s.io/component-base/metrics/prometheus/restclient"
	_ "k8s.io/component-base/metrics/prometheus/version"
	_ "k8s.io/component-base/metrics/prometheus/workqueue"
)

var reconciles = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "controller_reconcile_total", Help: "Reconciles, by controller and result."}, []string{"controller", "result"})

var register sync.Once

// Metrics is what the runtime and the libraries below it count, in this process.
func Metrics() prometheus.Gatherer {
	register.Do(func() { legacyregistry.RawMustRegister(reconciles) })
	return legacyregistry.DefaultGatherer
}

func observe(name string, err error) {
	result := "success"
	if err != nil {
		result = "error"
	}
	reconciles.WithLabelValues(name, result).Inc()
}
