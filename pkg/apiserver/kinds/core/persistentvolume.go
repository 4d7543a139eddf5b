package core

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/staging/api/defaults"
)

// PersistentVolume is the row of persistentvolumes.
func PersistentVolume() *kind.Def {
	return kind.Row(kind.Def{
		Kind: "PersistentVolume", Resource: "persistentvolumes",
		ShortNames:    []string{"pv"},
		ReturnDeleted: true,
		Subs:          []kind.Sub{kind.Status},
	}, kind.In[corev1.PersistentVolume, corev1.PersistentVolumeList](corev1.SchemeGroupVersion, defaults.PersistentVolume))
}
