package storage

import (
	storagev1 "k8s.io/api/storage/v1"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

// VolumeAttributesClass is the row of volumeattributesclasses.
func VolumeAttributesClass() *kind.Def {
	return kind.Row(kind.Def{
		Kind: "VolumeAttributesClass", Resource: "volumeattributesclasses",
		ShortNames: []string{"vac"},
	}, kind.In[storagev1.VolumeAttributesClass, storagev1.VolumeAttributesClassList](storagev1.SchemeGroupVersion, nil))
}
