package cache

import "github.com/prometheus/client_golang/prometheus"

var (
	storedObjects   = prometheus.NewDesc("apiserver_storage_objects", "Objects stored, by resource.", []string{"resource"}, nil)
	resourceObjects = prometheus.NewDesc("apiserver_resource_objects", "Objects stored, by group and resource.", []string{"group", "resource"}, nil)
	resourceSize    = prometheus.NewDesc("apiserver_resource_size_estimate_bytes", "Encoded bytes of the objects stored.", []string{"group", "resource"}, nil)
)

// Describe names the metrics.
func (c *Cache) Describe(ch chan<- *prometheus.Desc) {
	ch <- storedObjects
	ch <- resourceObjects
	ch <- resourceSize
}

// Collect tells how much of each resource there is.
func (c *Cache) Collect(ch chan<- prometheus.Metric) {
	for _, r := range c.rows.Load().folders {
		r.mu.RLock()
		n, size := r.tree.Len(), r.size
		r.mu.RUnlock()
		gr := r.Def.GroupResource()
		ch <- prometheus.MustNewConstMetric(storedObjects, prometheus.GaugeValue, float64(n), gr.String())
		ch <- prometheus.MustNewConstMetric(resourceObjects, prometheus.GaugeValue, float64(n), gr.Group, gr.Resource)
		ch <- prometheus.MustNewConstMetric(resourceSize, prometheus.GaugeValue, float64(size), gr.Group, gr.Resource)
	}
}

// bytes are those of the object, nil has none.
func (i *Item) bytes() int64 {
	if i == nil {
		return 0
	}
	return int64(len(i.Proto) + len(i.loose))
}
