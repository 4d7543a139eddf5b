package storage

import (
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/staging/api/validate"
)

// VolumeAttachment is the row of volumeattachments.
func VolumeAttachment() *kind.Def {
	return kind.Row(kind.Def{
		Kind: "VolumeAttachment", Resource: "volumeattachments",
		NeedVersionOnUpdate: true,
		Check:               kind.Valid(validate.VolumeAttachment, validate.VolumeAttachmentUpdate),
		Subs:                []kind.Sub{kind.Status},
		Columns:             attachmentColumns(),
		Row:                 kind.Of(attachmentRow),
	}, kind.In[storagev1.VolumeAttachment, storagev1.VolumeAttachmentList](storagev1.SchemeGroupVersion, nil))
}

// attachmentColumns marks the attacher as a name, as upstream does.
func attachmentColumns() []metav1.TableColumnDefinition {
	c := kind.Columns("Name Attacher PV Node Attached:boolean Age")
	c[1].Format = "name"
	return c
}

func attachmentRow(a *storagev1.VolumeAttachment) []any {
	volume := ""
	if a.Spec.Source.PersistentVolumeName != nil {
		volume = *a.Spec.Source.PersistentVolumeName
	}
	return []any{a.Name, a.Spec.Attacher, volume, a.Spec.NodeName, a.Status.Attached, kind.Age(a.CreationTimestamp)}
}
