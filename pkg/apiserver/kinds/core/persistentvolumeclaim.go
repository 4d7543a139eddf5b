package core

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/staging/api/defaults"
)

// PersistentVolumeClaim is the row of persistentvolumeclaims.
func PersistentVolumeClaim() *kind.Def {
	return kind.Row(kind.Def{
		Kind: "PersistentVolumeClaim", Resource: "persistentvolumeclaims",
		ShortNames:    []string{"pvc"},
		Namespaced:    true,
		ReturnDeleted: true,
		Subs:          []kind.Sub{kind.Status},
	}, kind.In[corev1.PersistentVolumeClaim, corev1.PersistentVolumeClaimList](corev1.SchemeGroupVersion, defaults.PersistentVolumeClaim))
}
