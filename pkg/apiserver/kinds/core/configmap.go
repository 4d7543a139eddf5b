package core

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/staging/api/validate"
)

// ConfigMap is the row of configmaps.
func ConfigMap() *kind.Def {
	return kind.Row(kind.Def{
		Kind: "ConfigMap", Resource: "configmaps", ShortNames: []string{"cm"}, Namespaced: true,
		Check: kind.Ask(func(_ *kind.Op, c, old *corev1.ConfigMap) field.ErrorList {
			if old == nil {
				return validate.ConfigMap(c)
			}
			return validate.ConfigMapUpdate(c, old)
		}),
		Columns: kind.Columns("Name Data Age"),
		Row: kind.Of(func(c *corev1.ConfigMap) []any {
			return []any{c.Name, int64(len(c.Data) + len(c.BinaryData)), kind.Age(c.CreationTimestamp)}
		}),
	}, kind.In[corev1.ConfigMap, corev1.ConfigMapList](corev1.SchemeGroupVersion, nil))
}
