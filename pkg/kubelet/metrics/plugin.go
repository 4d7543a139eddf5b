package metrics

import (
	"time"

	v1 "k8s.io/api/core/v1"
)

// Plugin is what a kind of volume is called.
func Plugin(v *v1.Volume) string {
	switch {
	case v.EmptyDir != nil:
		return "kubernetes.io/empty-dir"
	case v.ConfigMap != nil:
		return "kubernetes.io/configmap"
	case v.Secret != nil:
		return "kubernetes.io/secret"
	case v.Projected != nil:
		return "kubernetes.io/projected"
	case v.DownwardAPI != nil:
		return "kubernetes.io/downward-api"
	case v.HostPath != nil:
		return "kubernetes.io/host-path"
	case v.NFS != nil:
		return "kubernetes.io/nfs"
	case v.Image != nil:
		return "kubernetes.io/image"
	case v.CSI != nil:
		return "kubernetes.io/csi:" + v.CSI.Driver
	}
	return "kubernetes.io/csi"
}

// Opened tells of one run of a credential provider.
func (s *Set) Opened(provider string, took time.Duration, err error) {
	if s == nil {
		return
	}
	s.pluginTook.WithLabelValues(provider).Observe(took.Seconds())
	if err != nil {
		s.pluginErrors.WithLabelValues(provider).Inc()
	}
}
