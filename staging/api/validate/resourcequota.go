package validate

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// quotas are what a quota may count by a short name besides what containers ask for.
var quotas = map[string]bool{
	"requests.cpu": true, "requests.memory": true, "requests.ephemeral-storage": true, "requests.storage": true,
	"limits.cpu": true, "limits.memory": true, "limits.ephemeral-storage": true, "storage": true,
	"pods": true, "services": true, "replicationcontrollers": true, "resourcequotas": true, "secrets": true, "configmaps": true,
	"persistentvolumeclaims": true, "services.nodeports": true, "services.loadbalancers": true,
}

var quotaScopes = []corev1.ResourceQuotaScope{
	corev1.ResourceQuotaScopeTerminating, corev1.ResourceQuotaScopeNotTerminating, corev1.ResourceQuotaScopeBestEffort,
	corev1.ResourceQuotaScopeNotBestEffort, corev1.ResourceQuotaScopePriorityClass, corev1.ResourceQuotaScopeCrossNamespacePodAffinity,
	corev1.ResourceQuotaScopeVolumeAttributesClass,
}

// ResourceQuota answers what is wrong with a quota.
func ResourceQuota(q *corev1.ResourceQuota) field.ErrorList {
	errs := validation.ValidateObjectMeta(&q.ObjectMeta, true, validation.NameIsDNSSubdomain, metadata)
	spec := field.NewPath("spec")
	for _, r := range sortedNames(q.Spec.Hard) {
		at, v := spec.Child("hard").Key(r), q.Spec.Hard[corev1.ResourceName(r)]
		errs = append(errs, quotaName(r, at)...)
		if v.Sign() < 0 {
			errs = append(errs, field.Invalid(at, v.String(), validation.IsNegativeErrorMsg))
		}
		if whole(r) && v.MilliValue()%1000 != 0 {
			errs = append(errs, field.Invalid(at, v, "must be an integer"))
		}
	}
	for _, s := range q.Spec.Scopes {
		if !slices.Contains(quotaScopes, s) {
			errs = append(errs, field.Invalid(spec.Child("scopes"), q.Spec.Scopes, "unsupported scope"))
		}
	}
	return append(errs, scopeSelector(q.Spec.ScopeSelector, spec.Child("scopeSelector", "matchExpressions"))...)
}

// ResourceQuotaUpdate answers what is wrong with a quota in the place of old.
func ResourceQuotaUpdate(q, old *corev1.ResourceQuota) field.ErrorList {
	errs := common(&q.ObjectMeta, &old.ObjectMeta, true)
	errs = append(errs, validation.ValidateObjectMetaUpdate(&q.ObjectMeta, &old.ObjectMeta, metadata)...)
	errs = append(errs, ResourceQuota(q)...)
	now, was := slices.Clone(q.Spec.Scopes), slices.Clone(old.Spec.Scopes)
	slices.Sort(now)
	slices.Sort(was)
	if !slices.Equal(slices.Compact(now), slices.Compact(was)) {
		errs = append(errs, field.Invalid(field.NewPath("spec", "scopes"), q.Spec.Scopes, validation.FieldImmutableErrorMsg))
	}
	return errs
}

func quotaName(r string, at *field.Path) field.ErrorList {
	errs := qualified(at, r)
	if len(errs) > 0 || strings.Contains(r, "/") || quotas[r] || computes(r) {
		return errs
	}
	if strings.HasPrefix(r, "requests."+corev1.ResourceHugePagesPrefix) || strings.HasPrefix(r, "limits."+corev1.ResourceHugePagesPrefix) {
		return errs
	}
	return append(errs, field.Invalid(at, r, "must be a standard resource type or fully qualified"),
		field.Invalid(at, r, "must be a standard resource for quota"))
}

// whole tells what is counted in pieces.
func whole(r string) bool {
	switch r {
	case "pods", "services", "replicationcontrollers", "resourcequotas", "secrets", "configmaps", "persistentvolumeclaims",
		"services.nodeports", "services.loadbalancers":
		return true
	}
	return false
}

func scopeSelector(s *corev1.ScopeSelector, at *field.Path) field.ErrorList {
	if s == nil {
		return nil
	}
	var errs field.ErrorList
	for _, e := range s.MatchExpressions {
		if !slices.Contains(quotaScopes, e.ScopeName) {
			errs = append(errs, field.Invalid(at.Child("scopeName"), e.ScopeName, "unsupported scope"))
		}
		switch e.Operator {
		case corev1.ScopeSelectorOpIn, corev1.ScopeSelectorOpNotIn:
			if len(e.Values) == 0 {
				errs = append(errs, field.Required(at.Child("values"), "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector"))
			}
		case corev1.ScopeSelectorOpExists, corev1.ScopeSelectorOpDoesNotExist:
			if len(e.Values) != 0 {
				errs = append(errs, field.Invalid(at.Child("values"), e.Values, "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector"))
			}
		default:
			errs = append(errs, field.Invalid(at.Child("operator"), e.Operator, "not a valid selector operator"))
		}
	}
	return errs
}
