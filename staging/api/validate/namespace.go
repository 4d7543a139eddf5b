package validate

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Namespace answers what is wrong with a namespace.
func Namespace(ns *corev1.Namespace) field.ErrorList {
	errs := validation.ValidateObjectMeta(&ns.ObjectMeta, false, validation.ValidateNamespaceName, metadata)
	for _, f := range ns.Spec.Finalizers {
		errs = append(errs, validation.ValidateFinalizerName(string(f), field.NewPath("spec", "finalizers"))...)
	}
	return errs
}

// NamespaceUpdate answers what is wrong with a namespace in the place of old.
func NamespaceUpdate(ns, old *corev1.Namespace) field.ErrorList {
	errs := common(&ns.ObjectMeta, &old.ObjectMeta, false)
	errs = append(errs, Namespace(ns)...)
	return append(errs, validation.ValidateObjectMetaUpdate(&ns.ObjectMeta, &old.ObjectMeta, metadata)...)
}
