package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

var (
	labels   = []string{"operation", "group", "resource"}
	requests = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "etcd_requests_total", Help: "Requests to etcd."}, labels)
	failures = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "etcd_request_errors_total", Help: "Requests that etcd did not answer."}, labels)
	took     = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "etcd_request_duration_seconds", Help: "How long etcd took.",
		Buckets: []float64{0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1, 1.25, 1.5, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 45, 60},
	}, labels)
	dbSize = prometheus.NewDesc("apiserver_storage_size_bytes", "Size of etcd's database.", []string{"storage_cluster_id"}, nil)
)

// series are those of one operation on one resource, looked up once.
type series struct {
	requests, failures prometheus.Counter
	took               prometheus.Observer
}

// seriesKey names series by the first elements of a key; folders of two elements are told apart by both.
type seriesKey struct{ operation, folder string }

// Name tells which resource a key's folder belongs to, for the metrics; ok is false for one that is not a resource's. It
// is called before the first request.
func (s *Store) Name(f func(key string) (group, resource string, ok bool)) { s.name = f }

// count notes one request to etcd. What etcd answered with an orderly no was answered.
func (s *Store) count(operation, key string, begun time.Time, err error) {
	if s.name == nil {
		return
	}
	folder := key
	if a, rest, ok := strings.Cut(key, "/"); ok {
		folder = a
		if strings.Contains(a, ".") || a == "services" { // custom resources, and services/specs beside services/endpoints
			b, _, _ := strings.Cut(rest, "/")
			folder = key[:len(a)+1+len(b)]
		}
	}
	k := seriesKey{operation, folder}
	known, ok := s.series.Load(k)
	if !ok {
		group, resource, _ := s.name(key)
		known, _ = s.series.LoadOrStore(k, &series{
			requests.WithLabelValues(operation, group, resource), failures.WithLabelValues(operation, group, resource), took.WithLabelValues(operation, group, resource),
		})
	}
	x := known.(*series)
	x.requests.Inc()
	x.took.Observe(time.Since(begun).Seconds())
	if err != nil && !errors.Is(err, ErrExists) && !errors.Is(err, ErrMissing) && !errors.Is(err, ErrConflict) && !errors.Is(err, context.Canceled) {
		x.failures.Inc()
	}
}

// Metrics are those of the etcds of a server.
type Metrics []*Store

// Describe names the metrics.
func (Metrics) Describe(ch chan<- *prometheus.Desc) {
	ch <- dbSize
	for _, c := range []prometheus.Collector{requests, failures, took} {
		c.Describe(ch)
	}
}

// Collect tells them. An etcd that does not say at once how large it is is left out.
func (m Metrics) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	var wg sync.WaitGroup
	for i, s := range m {
		wg.Go(func() {
			if n, err := s.DBSize(ctx); err == nil {
				ch <- prometheus.MustNewConstMetric(dbSize, prometheus.GaugeValue, float64(n), fmt.Sprintf("etcd-%d", i))
			}
		})
	}
	wg.Wait()
	for _, c := range []prometheus.Collector{requests, failures, took} {
		c.Collect(ch)
	}
}
