package core

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/staging/api/validate"
)

// ConfigMap is the row of configmaps.
func ConfigMap() *kind.Def {
	return kind.Row(kind.Def{
		Kind: "ConfigMap", Resource: "configmaps", ShortNames: []string{"cm"}, Namespaced: true,
		Check:   kind.Valid(validate.ConfigMap, validate.ConfigMapUpdate),
		Columns: kind.Describe(kind.Columns("Name Data Age"), "Data", corev1.ConfigMap{}.SwaggerDoc()["data"]),
		Row: kind.Of(func(c *corev1.ConfigMap) []any {
			return []any{c.Name, int64(len(c.Data) + len(c.BinaryData)), kind.Age(c.CreationTimestamp)}
		}),
	}, kind.In[corev1.ConfigMap, corev1.ConfigMapList](corev1.SchemeGroupVersion, nil))
}
