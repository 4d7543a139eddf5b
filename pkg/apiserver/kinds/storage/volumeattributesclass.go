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
		Columns:    kind.Columns("Name DriverName Age"),
		Row:        kind.Of(attributesRow),
	}, kind.In[storagev1.VolumeAttributesClass, storagev1.VolumeAttributesClassList](storagev1.SchemeGroupVersion, nil))
}

func attributesRow(c *storagev1.VolumeAttributesClass) []any {
	return []any{c.Name, c.DriverName, kind.Age(c.CreationTimestamp)}
}
