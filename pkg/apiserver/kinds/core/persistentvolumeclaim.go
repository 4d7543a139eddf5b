package core

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

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
		Prepare: kind.On(func(_ *kind.Op, c, old *corev1.PersistentVolumeClaim) {
			if old == nil {
				c.Status.Phase = corev1.ClaimPending
			}
			alignSources(&c.Spec)
		}),
		Check:   kind.Ask(checkClaim),
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

// checkClaim: a claim is settled when made, but for its binding once, its class if it named none, and, once bound, its
// size and attributes class.
func checkClaim(_ *kind.Op, c, old *corev1.PersistentVolumeClaim) field.ErrorList {
	metadata, spec := field.NewPath("metadata"), field.NewPath("spec")
	errs := validation.ValidateObjectMeta(&c.ObjectMeta, true, validation.NameIsDNSSubdomain, metadata)
	if old == nil {
		return errs
	}
	errs = append(errs, validation.ValidateObjectMetaUpdate(&c.ObjectMeta, &old.ObjectMeta, metadata)...)
	rest, was := c.Spec, old.Spec
	if was.VolumeName == "" {
		rest.VolumeName = ""
	}
	if was.StorageClassName == nil {
		rest.StorageClassName = nil
	}
	if old.Status.Phase == corev1.ClaimBound {
		rest.Resources.Requests, rest.VolumeAttributesClassName = was.Resources.Requests, was.VolumeAttributesClassName
	}
	if !equality.Semantic.DeepEqual(rest, was) {
		errs = append(errs, field.Forbidden(spec, "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims"))
	}
	size, asked, before := old.Status.Capacity[corev1.ResourceStorage], c.Spec.Resources.Requests[corev1.ResourceStorage], was.Resources.Requests[corev1.ResourceStorage]
	if asked.Cmp(before) < 0 && asked.Cmp(size) <= 0 {
		errs = append(errs, field.Forbidden(spec.Child("resources", "requests", "storage"), "field can not be less than status.capacity"))
	}
	return append(errs, validation.ValidateImmutableField(c.Spec.VolumeMode, was.VolumeMode, field.NewPath("volumeMode"))...)
}
