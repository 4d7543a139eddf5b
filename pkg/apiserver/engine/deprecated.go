package engine

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/sextant-k8s/sextant/pkg/apiserver/request"
)

var deprecatedAPIs = prometheus.NewGaugeVec(prometheus.GaugeOpts{
	Name: "apiserver_requested_deprecated_apis", Help: "1 for each deprecated API that has been asked for.",
}, []string{"group", "version", "resource", "subresource", "removed_release"})

// deprecated tells the client, the audit event and the metrics that what is asked for goes out of use.
func (c *call) deprecated() {
	c.warn(c.ver.Deprecated)
	sub := c.info.Sub
	if sub != "" && c.def.Sub(sub) == nil {
		return // it is not served
	}
	deprecatedAPIs.WithLabelValues(c.info.GVR.Group, c.info.GVR.Version, c.info.GVR.Resource, sub, c.ver.Removed).Set(1)
	if t := request.TrailOf(c.ctx); t != nil {
		t.Annotate("k8s.io/deprecated", "true")
		if c.ver.Removed != "" {
			t.Annotate("k8s.io/removed-release", c.ver.Removed)
		}
	}
}
