package storage

import (
	storagev1 "k8s.io/api/storage/v1"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/staging/api/defaults"
)

// StorageClass is the row of storageclasses.
func StorageClass() *kind.Def {
	return kind.Row(kind.Def{
		Kind: "StorageClass", Resource: "storageclasses",
		ShortNames: []string{"sc"},
	}, kind.In[storagev1.StorageClass, storagev1.StorageClassList](storagev1.SchemeGroupVersion, defaults.StorageClass))
}
