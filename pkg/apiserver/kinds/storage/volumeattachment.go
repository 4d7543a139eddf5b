package storage

import (
	storagev1 "k8s.io/api/storage/v1"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

// VolumeAttachment is the row of volumeattachments.
func VolumeAttachment() *kind.Def {
	return kind.Row(kind.Def{
		Kind: "VolumeAttachment", Resource: "volumeattachments",
		Subs: []kind.Sub{kind.Status},
	}, kind.In[storagev1.VolumeAttachment, storagev1.VolumeAttachmentList](storagev1.SchemeGroupVersion, nil))
}
