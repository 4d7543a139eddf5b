package core

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/uuid"

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
		Prepare: kind.On(func(_ *kind.Op, l, old *corev1.LimitRange) {
			if old == nil && l.Name == "" {
				l.Name = string(uuid.NewUUID())
			}
		}),
		Check: kind.Valid(validate.LimitRange, validate.LimitRangeUpdate),
	}, kind.In[corev1.LimitRange, corev1.LimitRangeList](corev1.SchemeGroupVersion, defaults.LimitRange))
}
