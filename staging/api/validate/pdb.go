package validate

import (
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/intstr"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// PodDisruptionBudget answers what is wrong with a disruption budget.
func PodDisruptionBudget(b *policyv1.PodDisruptionBudget) field.ErrorList {
	return append(validation.ValidateObjectMeta(&b.ObjectMeta, true, validation.NameIsDNSSubdomain, metadata), budget(&b.Spec)...)
}

// PodDisruptionBudgetUpdate answers what is wrong with a disruption budget in the place of old.
func PodDisruptionBudgetUpdate(b, old *policyv1.PodDisruptionBudget) field.ErrorList {
	return append(common(&b.ObjectMeta, &old.ObjectMeta, true), PodDisruptionBudget(b)...)
}

func budget(s *policyv1.PodDisruptionBudgetSpec) field.ErrorList {
	var errs field.ErrorList
	spec := field.NewPath("spec")
	if s.MinAvailable != nil && s.MaxUnavailable != nil {
		errs = append(errs, field.Invalid(spec, *s, "minAvailable and maxUnavailable cannot be both set"))
	}
	if s.MinAvailable != nil {
		errs = append(errs, share(*s.MinAvailable, spec.Child("minAvailable"))...)
	}
	if s.MaxUnavailable != nil {
		errs = append(errs, share(*s.MaxUnavailable, spec.Child("maxUnavailable"))...)
	}
	if s.Selector != nil {
		errs = append(errs, labelSelector(s.Selector, spec.Child("selector"))...)
	}
	if p := s.UnhealthyPodEvictionPolicy; p != nil {
		errs = append(errs, among(spec.Child("unhealthyPodEvictionPolicy"), *p, policyv1.AlwaysAllow, policyv1.IfHealthyBudget)...)
	}
	return errs
}

// share checks a number or a percentage of at most all.
func share(v intstr.IntOrString, at *field.Path) field.ErrorList {
	if v.Type == intstr.Int {
		return validation.ValidateNonnegativeField(int64(v.IntVal), at)
	}
	if errs := wrong(at, v, utilvalidation.IsValidPercent(v.StrVal)); len(errs) > 0 {
		return errs
	}
	if n, _ := intstr.GetScaledValueFromIntOrPercent(&v, 100, false); n > 100 {
		return field.ErrorList{field.Invalid(at, v, "must not be greater than 100%")}
	}
	return nil
}
