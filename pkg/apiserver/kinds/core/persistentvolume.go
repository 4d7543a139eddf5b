package core

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/staging/api/defaults"
	"github.com/sextant-k8s/sextant/staging/api/validate"
)

// PersistentVolume is the row of persistentvolumes.
func PersistentVolume() *kind.Def {
	return kind.Row(kind.Def{
		Kind: "PersistentVolume", Resource: "persistentvolumes",
		ShortNames:    []string{"pv"},
		ReturnDeleted: true,
		Prepare: kind.On(func(op *kind.Op, v, old *corev1.PersistentVolume) {
			if old == nil {
				v.Status.Phase, v.Status.LastPhaseTransitionTime = corev1.VolumePending, &metav1.Time{Time: op.Now}
			}
		}),
		Check:   kind.Valid(validate.PersistentVolume, validate.PersistentVolumeUpdate),
		Subs:    []kind.Sub{kind.Status},
		Columns: kind.Columns("Name Capacity Access_Modes Reclaim_Policy Status Claim StorageClass VolumeAttributesClass Reason Age VolumeMode*"),
		Row:     kind.Of(volumeRow),
	}, kind.In[corev1.PersistentVolume, corev1.PersistentVolumeList](corev1.SchemeGroupVersion, defaults.PersistentVolume))
}

func volumeRow(v *corev1.PersistentVolume) []any {
	size := v.Spec.Capacity[corev1.ResourceStorage]
	phase := string(v.Status.Phase)
	if v.DeletionTimestamp != nil {
		phase = "Terminating"
	}
	claim := ""
	if r := v.Spec.ClaimRef; r != nil {
		claim = r.Namespace + "/" + r.Name
	}
	class, ok := v.Annotations[corev1.BetaStorageClassAnnotation]
	if !ok {
		class = v.Spec.StorageClassName
	}
	return []any{
		v.Name, size.String(), accessModes(v.Spec.AccessModes), string(v.Spec.PersistentVolumeReclaimPolicy), phase, claim, class,
		unset(v.Spec.VolumeAttributesClassName), v.Status.Reason, kind.Age(v.CreationTimestamp), unset(v.Spec.VolumeMode),
	}
}

// accessModes shows modes by their initials, each once.
func accessModes(modes []corev1.PersistentVolumeAccessMode) string {
	var list []string
	for _, m := range []struct {
		mode  corev1.PersistentVolumeAccessMode
		short string
	}{
		{corev1.ReadWriteOnce, "RWO"}, {corev1.ReadOnlyMany, "ROX"}, {corev1.ReadWriteMany, "RWX"}, {corev1.ReadWriteOncePod, "RWOP"},
	} {
		if slices.Contains(modes, m.mode) {
			list = append(list, m.short)
		}
	}
	return strings.Join(list, ",")
}

func unset[T ~string](s *T) string {
	if s == nil {
		return "<unset>"
	}
	return string(*s)
}
