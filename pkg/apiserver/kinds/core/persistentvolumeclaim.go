package core

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/staging/api/defaults"
	"github.com/sextant-k8s/sextant/staging/api/validate"
)

// PersistentVolumeClaim is the row of persistentvolumeclaims.
func PersistentVolumeClaim() *kind.Def {
	return kind.Row(kind.Def{
		Kind: "PersistentVolumeClaim", Resource: "persistentvolumeclaims",
		ShortNames:    []string{"pvc"},
		Namespaced:    true,
		ReturnDeleted: true,
		Subs:          []kind.Sub{kind.Status},
		Prepare: kind.On(func(_ *kind.Op, c, old *corev1.PersistentVolumeClaim) {
			if old == nil {
				c.Status.Phase = corev1.ClaimPending
				dropSource(&c.Spec)
			}
			alignSources(&c.Spec)
		}),
		Check:   kind.Valid(validate.PersistentVolumeClaim, validate.PersistentVolumeClaimUpdate),
		Columns: kind.Columns("Name Status Volume Capacity Access_Modes StorageClass VolumeAttributesClass Age VolumeMode*"),
		Row:     kind.Of(claimRow),
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

// alignSources: where a claim's contents come from has an old and a new field, which say the same while they can.
func alignSources(s *corev1.PersistentVolumeClaimSpec) {
	switch {
	case s.DataSource != nil && s.DataSourceRef == nil:
		s.DataSourceRef = &corev1.TypedObjectReference{APIGroup: s.DataSource.APIGroup, Kind: s.DataSource.Kind, Name: s.DataSource.Name}
	case s.DataSource == nil && s.DataSourceRef != nil && (s.DataSourceRef.Namespace == nil || *s.DataSourceRef.Namespace == ""):
		s.DataSource = &corev1.TypedLocalObjectReference{APIGroup: s.DataSourceRef.APIGroup, Kind: s.DataSourceRef.Kind, Name: s.DataSourceRef.Name}
	}
}

// dropSource takes away what the old field cannot name: only claims and snapshots.
func dropSource(s *corev1.PersistentVolumeClaimSpec) {
	if s.DataSource == nil || s.DataSourceRef != nil {
		return
	}
	group := ""
	if s.DataSource.APIGroup != nil {
		group = *s.DataSource.APIGroup
	}
	switch {
	case group == "" && s.DataSource.Kind == "PersistentVolumeClaim":
	case group == "snapshot.storage.k8s.io" && s.DataSource.Kind == "VolumeSnapshot":
	default:
		s.DataSource = nil
	}
}
