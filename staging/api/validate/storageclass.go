package validate

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// The limits of a class's parameters: their count, and their bytes in all.
const (
	parameterCount = 512
	parameterBytes = 256 << 10
)

// StorageClass answers what is wrong with a storage class.
func StorageClass(c *storagev1.StorageClass) field.ErrorList {
	errs := validation.ValidateObjectMeta(&c.ObjectMeta, false, validation.NameIsDNSSubdomain, metadata)
	at := field.NewPath("provisioner")
	if c.Provisioner == "" {
		errs = append(errs, field.Required(at, ""))
	} else {
		errs = append(errs, qualified(at, strings.ToLower(c.Provisioner))...)
	}
	errs = append(errs, parameters(c.Parameters)...)
	if p := c.ReclaimPolicy; p != nil && *p != "" {
		errs = append(errs, among(field.NewPath("reclaimPolicy"), *p, corev1.PersistentVolumeReclaimDelete, corev1.PersistentVolumeReclaimRetain)...)
	}
	if m, at := c.VolumeBindingMode, field.NewPath("volumeBindingMode"); m == nil {
		errs = append(errs, field.Required(at, ""))
	} else {
		errs = append(errs, among(at, *m, storagev1.VolumeBindingImmediate, storagev1.VolumeBindingWaitForFirstConsumer)...)
	}
	return append(errs, topologies(c.AllowedTopologies)...)
}

// StorageClassUpdate answers what is wrong with a storage class in the place of old.
func StorageClassUpdate(c, old *storagev1.StorageClass) field.ErrorList {
	errs := append(common(&c.ObjectMeta, &old.ObjectMeta, false), StorageClass(c)...)
	errs = append(errs, validation.ValidateObjectMetaUpdate(&c.ObjectMeta, &old.ObjectMeta, metadata)...)
	errs = append(errs, validation.ValidateImmutableField(c.Provisioner, old.Provisioner, field.NewPath("provisioner"))...)
	errs = append(errs, validation.ValidateImmutableField(c.Parameters, old.Parameters, field.NewPath("parameters"))...)
	errs = append(errs, validation.ValidateImmutableField(c.ReclaimPolicy, old.ReclaimPolicy, field.NewPath("reclaimPolicy"))...)
	return append(errs, validation.ValidateImmutableField(c.VolumeBindingMode, old.VolumeBindingMode, field.NewPath("volumeBindingMode"))...)
}

func parameters(of map[string]string) field.ErrorList {
	var errs field.ErrorList
	at, bytes := field.NewPath("parameters"), 0
	if len(of) > parameterCount {
		errs = append(errs, field.TooLong(at, "", parameterCount))
	}
	for k, v := range of {
		if k == "" {
			errs = append(errs, field.Invalid(at, k, "field can not be empty."))
		}
		bytes += len(k) + len(v)
	}
	if bytes > parameterBytes {
		errs = append(errs, field.TooLong(at, "", parameterBytes))
	}
	return errs
}

func topologies(terms []corev1.TopologySelectorTerm) field.ErrorList {
	var errs field.ErrorList
	seen := map[string]bool{}
	for i, t := range terms {
		of, keys := field.NewPath("allowedTopologies").Index(i).Child("matchLabelExpressions"), map[string]bool{}
		form := ""
		for j, e := range t.MatchLabelExpressions {
			at, values := of.Index(j), map[string]bool{}
			if len(e.Values) == 0 {
				errs = append(errs, field.Required(at.Child("values"), ""))
			}
			for k, v := range e.Values {
				if values[v] {
					errs = append(errs, field.Duplicate(at.Child("values").Index(k), v))
				}
				values[v] = true
			}
			errs = append(errs, qualified(at.Child("key"), e.Key)...)
			if keys[e.Key] {
				errs = append(errs, field.Duplicate(at.Child("key"), e.Key))
			}
			keys[e.Key] = true
			form += e.Key + "=" + strings.Join(e.Values, ",") + ";"
		}
		if seen[form] || form == "" {
			errs = append(errs, field.Duplicate(of, ""))
		}
		seen[form] = true
	}
	return errs
}
