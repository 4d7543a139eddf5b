package core

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

// ResourceQuota is the row of resourcequotas.
func ResourceQuota() *kind.Def {
	return kind.Row(kind.Def{
		Kind: "ResourceQuota", Resource: "resourcequotas",
		ShortNames:    []string{"quota"},
		Namespaced:    true,
		ReturnDeleted: true,
		Subs:          []kind.Sub{kind.Status},
	}, kind.In[corev1.ResourceQuota, corev1.ResourceQuotaList](corev1.SchemeGroupVersion, nil))
}
