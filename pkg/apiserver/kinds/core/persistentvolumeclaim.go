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
		Columns:       kind.Columns("Name Status Volume Capacity Access_Modes StorageClass VolumeAttributesClass Age VolumeMode*"),
		Row:           kind.Of(claimRow),
	}, kind.In[corev1.PersistentVolumeClaim, corev1.PersistentVolumeClaimList](corev1.SchemeGroupVersion, defaults.PersistentVolumeClaim))
}

func claimRow(c *corev1.PersistentVolumeClaim) []any {
	phase := string(c.Status.Phase)
	if c.DeletionTimestamp != nil {
		phase = "Terminating"
	}
	// What an unbound claim was or may be given says nothing yet.
	size, modes := "", ""
	if c.Spec.VolumeName != "" {
		q := c.Status.Capacity[corev1.ResourceStorage]
		size, modes = q.String(), accessModes(c.Status.AccessModes)
	}
	class, ok := c.Annotations[corev1.BetaStorageClassAnnotation]
	if !ok && c.Spec.StorageClassName != nil {
		class = *c.Spec.StorageClassName
	}
	return []any{
		c.Name, phase, c.Spec.VolumeName, size, modes, class, unset(c.Spec.VolumeAttributesClassName), kind.Age(c.CreationTimestamp),
		unset(c.Spec.VolumeMode),
	}
}
