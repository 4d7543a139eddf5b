package validate

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// ServiceAccount answers what is wrong with a service account.
func ServiceAccount(a *corev1.ServiceAccount) field.ErrorList {
	return validation.ValidateObjectMeta(&a.ObjectMeta, true, validation.ValidateServiceAccountName, metadata)
}

// ServiceAccountUpdate answers what is wrong with a service account in the place of old.
func ServiceAccountUpdate(a, old *corev1.ServiceAccount) field.ErrorList {
	errs := common(&a.ObjectMeta, &old.ObjectMeta, true)
	errs = append(errs, validation.ValidateObjectMetaUpdate(&a.ObjectMeta, &old.ObjectMeta, metadata)...)
	return append(errs, ServiceAccount(a)...)
}
