package core

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/staging/api/defaults"
)

// Endpoints is the row of endpoints.
func Endpoints() *kind.Def {
	return kind.Row(kind.Def{
		Kind: "Endpoints", Resource: "endpoints",
		ShortNames:     []string{"ep"},
		Namespaced:     true,
		Prefix:         "services/endpoints",
		CreateOnUpdate: true,
	}, kind.In[corev1.Endpoints, corev1.EndpointsList](corev1.SchemeGroupVersion, defaults.Endpoints))
}
