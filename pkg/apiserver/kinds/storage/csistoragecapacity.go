package storage

import (
	storagev1 "k8s.io/api/storage/v1"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

// CSIStorageCapacity is the row of csistoragecapacities.
func CSIStorageCapacity() *kind.Def {
	return kind.Row(kind.Def{
		Kind: "CSIStorageCapacity", Resource: "csistoragecapacities",
		Namespaced: true,
	}, kind.In[storagev1.CSIStorageCapacity, storagev1.CSIStorageCapacityList](storagev1.SchemeGroupVersion, nil))
}
