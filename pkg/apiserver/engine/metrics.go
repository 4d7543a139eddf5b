package engine

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

var (
	kindLabels    = []string{"group", "resource"}
	versionLabels = []string{"group", "version", "resource"}
	watchEvents   = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "apiserver_watch_events_total", Help: "Events sent to watchers.",
	}, versionLabels)
	watchSizes = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "apiserver_watch_events_sizes", Help: "Bytes of the events sent to watchers.", Buckets: prometheus.ExponentialBuckets(1024, 2, 8),
	}, versionLabels)
	watchLists = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "apiserver_watch_list_duration_seconds", Help: "How long watchers were told the state they asked for.",
		Buckets: []float64{0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1, 2, 4, 6, 8, 10, 15, 20, 30, 45, 60},
	}, append(versionLabels, "scope"))
	initEvents = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "apiserver_init_events_total", Help: "Events sent to watchers that told the state they began with.",
	}, kindLabels)
	terminated = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "apiserver_terminated_watchers_total", Help: "Watchers that were too slow for what is kept.",
	}, kindLabels)
	readWait = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "apiserver_watch_cache_read_wait_seconds", Help: "How long reads waited for the cache to be as fresh as they asked.",
		Buckets: []float64{0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1, 1.25, 1.5, 2, 3},
	}, kindLabels)
	consistentReads = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "apiserver_watch_cache_consistent_read_total", Help: "Consistent reads from the cache. None falls back to etcd.",
	}, append(kindLabels, "success", "fallback"))
)

// Collectors are what this room counts.
func Collectors() []prometheus.Collector {
	return []prometheus.Collector{deprecatedAPIs, watchEvents, watchSizes, watchLists, initEvents, terminated, readWait, consistentReads}
}

// seen is what is counted of one resource in one version, looked up once. What was never asked for is not told.
type seen struct {
	watch, read sync.Once

	events, initial, terminated prometheus.Counter
	sizes                       prometheus.Observer
	wait                        prometheus.Observer
	fresh                       prometheus.Counter
}

func (s *served) watched() *seen {
	s.seen.watch.Do(func() {
		group, version, resource := s.ver.GV.Group, s.ver.GV.Version, s.def.Resource
		s.seen.events, s.seen.sizes = watchEvents.WithLabelValues(group, version, resource), watchSizes.WithLabelValues(group, version, resource)
		s.seen.initial, s.seen.terminated = initEvents.WithLabelValues(group, resource), terminated.WithLabelValues(group, resource)
	})
	return &s.seen
}

// waited counts a read that had to be as fresh as etcd.
func (s *served) waited(since time.Time, err error) {
	group, resource := s.ver.GV.Group, s.def.Resource
	s.seen.read.Do(func() {
		s.seen.wait, s.seen.fresh = readWait.WithLabelValues(group, resource), consistentReads.WithLabelValues(group, resource, "true", "false")
	})
	s.seen.wait.Observe(time.Since(since).Seconds())
	if err != nil {
		consistentReads.WithLabelValues(group, resource, "false", "false").Inc()
		return
	}
	s.seen.fresh.Inc()
}
