package core

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/staging/api/defaults"
	"github.com/sextant-k8s/sextant/staging/api/validate"
)

// LimitRange is the row of limitranges.
func LimitRange() *kind.Def {
	return kind.Row(kind.Def{
		Kind: "LimitRange", Resource: "limitranges",
		ShortNames:     []string{"limits"},
		Namespaced:     true,
		CreateOnUpdate: true,
		Check:          kind.Valid(validate.LimitRange, validate.LimitRangeUpdate),
	}, kind.In[corev1.LimitRange, corev1.LimitRangeList](corev1.SchemeGroupVersion, defaults.LimitRange))
}
