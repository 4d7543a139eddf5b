package core

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/staging/api/defaults"
)

// PodTemplate is the row of podtemplates.
func PodTemplate() *kind.Def {
	return kind.Row(kind.Def{
		Kind: "PodTemplate", Resource: "podtemplates",
		Namespaced:    true,
		Generation:    true,
		ReturnDeleted: true,
	}, kind.In[corev1.PodTemplate, corev1.PodTemplateList](corev1.SchemeGroupVersion, defaults.PodTemplate))
}
