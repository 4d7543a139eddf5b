package cache

import "github.com/prometheus/client_golang/prometheus"

var (
	storedObjects   = prometheus.NewDesc("apiserver_storage_objects", "Objects stored, by resource.", []string{"resource"}, nil)
	resourceObjects = prometheus.NewDesc("apiserver_resource_objects", "Objects stored, by group and resource.", []string{"group", "resource"}, nil)
	resourceSize    = prometheus.NewDesc("apiserver_resource_size_estimate_bytes", "Encoded bytes of the objects stored.", []string{"group", "resource"}, nil)
)

// What is told of one resource each.
var kindLabels = []string{"group", "resource"}

var (
	received    = prometheus.NewDesc("apiserver_watch_cache_events_received_total", "Events that came from etcd.", kindLabels, nil)
	fromStorage = prometheus.NewDesc("apiserver_storage_events_received_total", "Events that came from etcd.", kindLabels, nil)
	handedOn    = prometheus.NewDesc("apiserver_watch_cache_events_dispatched_total", "Events handed on to watchers.", kindLabels, nil)
	filled      = prometheus.NewDesc("apiserver_watch_cache_initializations_total", "How often the cache was filled.", kindLabels, nil)
	capacity    = prometheus.NewDesc("watch_cache_capacity", "Events kept for watchers that come back.", kindLabels, nil)
	revision    = prometheus.NewDesc("apiserver_watch_cache_resource_version", "Revision up to which the cache is true.", kindLabels, nil)
)

// Describe names the metrics.
func (c *Cache) Describe(ch chan<- *prometheus.Desc) {
	ch <- storedObjects
	ch <- resourceObjects
	ch <- resourceSize
	for _, d := range []*prometheus.Desc{received, fromStorage, handedOn, filled, capacity, revision} {
		ch <- d
	}
}

// Collect tells how much of each resource there is.
func (c *Cache) Collect(ch chan<- prometheus.Metric) {
	for _, home := range c.All() {
		home.collect(ch)
	}
}

func (c *Cache) collect(ch chan<- prometheus.Metric) {
	upTo := c.Rev()
	for _, r := range c.rows.Load().folders {
		r.mu.RLock()
		n, size, told, fills, kept := r.tree.Len(), r.size, r.told, r.fills, len(r.all.events)
		r.mu.RUnlock()
		gr := r.Def.GroupResource()
		ch <- prometheus.MustNewConstMetric(storedObjects, prometheus.GaugeValue, float64(n), gr.String())
		ch <- prometheus.MustNewConstMetric(resourceObjects, prometheus.GaugeValue, float64(n), gr.Group, gr.Resource)
		ch <- prometheus.MustNewConstMetric(resourceSize, prometheus.GaugeValue, float64(size), gr.Group, gr.Resource)
		for _, d := range []*prometheus.Desc{received, fromStorage, handedOn} {
			ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(told), gr.Group, gr.Resource)
		}
		ch <- prometheus.MustNewConstMetric(filled, prometheus.CounterValue, float64(fills), gr.Group, gr.Resource)
		ch <- prometheus.MustNewConstMetric(capacity, prometheus.GaugeValue, float64(max(kept, minKeep)), gr.Group, gr.Resource)
		ch <- prometheus.MustNewConstMetric(revision, prometheus.GaugeValue, float64(upTo), gr.Group, gr.Resource)
	}
}

// bytes are those of the object, nil has none.
func (i *Item) bytes() int64 {
	if i == nil {
		return 0
	}
	return int64(len(i.Proto) + len(i.loose))
}
