package storage

import (
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/staging/api/defaults"
	"github.com/sextant-k8s/sextant/staging/api/validate"
)

// StorageClass is the row of storageclasses.
func StorageClass() *kind.Def {
	return kind.Row(kind.Def{
		Kind: "StorageClass", Resource: "storageclasses",
		ShortNames: []string{"sc"},
		Check:      kind.Valid(validate.StorageClass, validate.StorageClassUpdate),
		Columns:    kind.Columns("Name Provisioner ReclaimPolicy VolumeBindingMode AllowVolumeExpansion Age"),
		Row:        kind.Of(classRow),
	}, kind.In[storagev1.StorageClass, storagev1.StorageClassList](storagev1.SchemeGroupVersion, defaults.StorageClass))
}

// The annotations that make a class the one for claims that name none.
var defaultClass = []string{"storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"}

func classRow(c *storagev1.StorageClass) []any {
	name, reclaim, binding := c.Name, corev1.PersistentVolumeReclaimDelete, storagev1.VolumeBindingImmediate
	for _, a := range defaultClass {
		if c.Annotations[a] == "true" {
			name = c.Name + " (default)"
		}
	}
	if c.ReclaimPolicy != nil {
		reclaim = *c.ReclaimPolicy
	}
	if c.VolumeBindingMode != nil {
		binding = *c.VolumeBindingMode
	}
	expand := c.AllowVolumeExpansion != nil && *c.AllowVolumeExpansion
	return []any{name, c.Provisioner, string(reclaim), string(binding), expand, kind.Age(c.CreationTimestamp)}
}
