package validate

import (
	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Lease answers what is wrong with a lease.
func Lease(l *coordinationv1.Lease) field.ErrorList {
	errs := validation.ValidateObjectMeta(&l.ObjectMeta, true, validation.NameIsDNSSubdomain, metadata)
	return append(errs, leaseSpec(&l.Spec)...)
}

// LeaseUpdate answers what is wrong with a lease in the place of old.
func LeaseUpdate(l, old *coordinationv1.Lease) field.ErrorList {
	errs := common(&l.ObjectMeta, &old.ObjectMeta, true)
	errs = append(errs, validation.ValidateObjectMetaUpdate(&l.ObjectMeta, &old.ObjectMeta, metadata)...)
	return append(errs, leaseSpec(&l.Spec)...)
}

func leaseSpec(s *coordinationv1.LeaseSpec) field.ErrorList {
	var errs field.ErrorList
	spec := field.NewPath("spec")
	if d := s.LeaseDurationSeconds; d != nil && *d <= 0 {
		errs = append(errs, field.Invalid(spec.Child("leaseDurationSeconds"), *d, "must be greater than 0"))
	}
	if n := s.LeaseTransitions; n != nil && *n < 0 {
		errs = append(errs, field.Invalid(spec.Child("leaseTransitions"), *n, "must be greater than or equal to 0"))
	}
	return errs
}
