package validate

import (
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/validation"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const sealed = "field is immutable when `immutable` is set"

// ConfigMap answers what is wrong with a config map.
func ConfigMap(c *corev1.ConfigMap) field.ErrorList {
	errs := validation.ValidateObjectMeta(&c.ObjectMeta, true, validation.NameIsDNSSubdomain, field.NewPath("metadata"))
	data, binary := field.NewPath("data"), field.NewPath("binaryData")
	total := 0
	for _, k := range slices.Sorted(maps.Keys(c.Data)) {
		errs = append(errs, key(data, k)...)
		if _, twice := c.BinaryData[k]; twice {
			errs = append(errs, field.Invalid(data.Key(k), k, "duplicate of key present in binaryData"))
		}
		total += len(c.Data[k])
	}
	for _, k := range slices.Sorted(maps.Keys(c.BinaryData)) {
		errs = append(errs, key(binary, k)...)
		total += len(c.BinaryData[k])
	}
	if total > corev1.MaxSecretSize {
		errs = append(errs, field.TooLong(field.NewPath(""), "", corev1.MaxSecretSize))
	}
	return errs
}

// ConfigMapUpdate answers what is wrong with a config map in the place of old.
func ConfigMapUpdate(c, old *corev1.ConfigMap) field.ErrorList {
	errs := common(&c.ObjectMeta, &old.ObjectMeta, true)
	errs = append(errs, validation.ValidateObjectMetaUpdate(&c.ObjectMeta, &old.ObjectMeta, metadata)...)
	if old.Immutable != nil && *old.Immutable {
		if c.Immutable == nil || !*c.Immutable {
			errs = append(errs, field.Forbidden(field.NewPath("immutable"), sealed))
		}
		if !equality.Semantic.DeepEqual(c.Data, old.Data) {
			errs = append(errs, field.Forbidden(field.NewPath("data"), sealed))
		}
		if !equality.Semantic.DeepEqual(c.BinaryData, old.BinaryData) {
			errs = append(errs, field.Forbidden(field.NewPath("binaryData"), sealed))
		}
	}
	return append(errs, ConfigMap(c)...)
}

// key checks a key of a config map or secret: it becomes a file's name.
func key(at *field.Path, k string) field.ErrorList {
	var errs field.ErrorList
	for _, msg := range utilvalidation.IsConfigMapKey(k) {
		errs = append(errs, field.Invalid(at.Key(k), k, msg))
	}
	return errs
}
