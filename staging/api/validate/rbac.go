package validate

import (
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/api/validation/path"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Role answers what is wrong with a role.
func Role(r *rbacv1.Role) field.ErrorList {
	return append(validation.ValidateObjectMeta(&r.ObjectMeta, true, path.ValidatePathSegmentName, metadata), policyRules(r.Rules, true)...)
}

// RoleUpdate answers what is wrong with a role in the place of old.
func RoleUpdate(r, old *rbacv1.Role) field.ErrorList {
	errs := append(common(&r.ObjectMeta, &old.ObjectMeta, true), Role(r)...)
	return append(errs, validation.ValidateObjectMetaUpdate(&r.ObjectMeta, &old.ObjectMeta, metadata)...)
}

// ClusterRole answers what is wrong with a cluster role.
func ClusterRole(r *rbacv1.ClusterRole) field.ErrorList {
	errs := validation.ValidateObjectMeta(&r.ObjectMeta, false, path.ValidatePathSegmentName, metadata)
	errs = append(errs, policyRules(r.Rules, false)...)
	if r.AggregationRule == nil {
		return errs
	}
	at := field.NewPath("aggregationRule", "clusterRoleSelectors")
	if len(r.AggregationRule.ClusterRoleSelectors) == 0 {
		errs = append(errs, field.Required(at, "at least one clusterRoleSelector required if aggregationRule is non-nil"))
	}
	for i := range r.AggregationRule.ClusterRoleSelectors {
		errs = append(errs, metav1validation.ValidateLabelSelector(&r.AggregationRule.ClusterRoleSelectors[i], metav1validation.LabelSelectorValidationOptions{}, at.Index(i))...)
	}
	return errs
}

// ClusterRoleUpdate answers what is wrong with a cluster role in the place of old.
func ClusterRoleUpdate(r, old *rbacv1.ClusterRole) field.ErrorList {
	errs := append(common(&r.ObjectMeta, &old.ObjectMeta, false), ClusterRole(r)...)
	return append(errs, validation.ValidateObjectMetaUpdate(&r.ObjectMeta, &old.ObjectMeta, metadata)...)
}

// RoleBinding answers what is wrong with a role binding.
func RoleBinding(b *rbacv1.RoleBinding) field.ErrorList {
	return binding(&b.ObjectMeta, true, b.RoleRef, b.Subjects, "Role", "ClusterRole")
}

// RoleBindingUpdate answers what is wrong with a role binding in the place of old.
func RoleBindingUpdate(b, old *rbacv1.RoleBinding) field.ErrorList {
	errs := append(common(&b.ObjectMeta, &old.ObjectMeta, true), RoleBinding(b)...)
	errs = append(errs, validation.ValidateObjectMetaUpdate(&b.ObjectMeta, &old.ObjectMeta, metadata)...)
	return append(errs, sameRole(b.RoleRef, old.RoleRef)...)
}

// ClusterRoleBinding answers what is wrong with a cluster role binding.
func ClusterRoleBinding(b *rbacv1.ClusterRoleBinding) field.ErrorList {
	return binding(&b.ObjectMeta, false, b.RoleRef, b.Subjects, "ClusterRole")
}

// ClusterRoleBindingUpdate answers what is wrong with a cluster role binding in the place of old.
func ClusterRoleBindingUpdate(b, old *rbacv1.ClusterRoleBinding) field.ErrorList {
	errs := append(common(&b.ObjectMeta, &old.ObjectMeta, false), ClusterRoleBinding(b)...)
	errs = append(errs, validation.ValidateObjectMetaUpdate(&b.ObjectMeta, &old.ObjectMeta, metadata)...)
	return append(errs, sameRole(b.RoleRef, old.RoleRef)...)
}

func policyRules(rules []rbacv1.PolicyRule, namespaced bool) field.ErrorList {
	var errs field.ErrorList
	for i, r := range rules {
		at := field.NewPath("rules").Index(i)
		if len(r.Verbs) == 0 {
			errs = append(errs, field.Required(at.Child("verbs"), "verbs must contain at least one value"))
		}
		if urls := at.Child("nonResourceURLs"); len(r.NonResourceURLs) > 0 {
			if namespaced {
				errs = append(errs, field.Invalid(urls, r.NonResourceURLs, "namespaced rules cannot apply to non-resource URLs"))
			}
			if len(r.APIGroups) > 0 || len(r.Resources) > 0 || len(r.ResourceNames) > 0 {
				errs = append(errs, field.Invalid(urls, r.NonResourceURLs, "rules cannot apply to both regular resources and non-resource URLs"))
			}
			continue
		}
		if len(r.APIGroups) == 0 {
			errs = append(errs, field.Required(at.Child("apiGroups"), "resource rules must supply at least one api group"))
		}
		if len(r.Resources) == 0 {
			errs = append(errs, field.Required(at.Child("resources"), "resource rules must supply at least one resource"))
		}
	}
	return errs
}

func binding(m *metav1.ObjectMeta, namespaced bool, ref rbacv1.RoleRef, subjects []rbacv1.Subject, kinds ...string) field.ErrorList {
	errs := validation.ValidateObjectMeta(m, namespaced, path.ValidatePathSegmentName, metadata)
	at := field.NewPath("roleRef")
	errs = append(errs, among(at.Child("apiGroup"), ref.APIGroup, rbacv1.GroupName)...)
	errs = append(errs, among(at.Child("kind"), ref.Kind, kinds...)...)
	if ref.Name == "" {
		errs = append(errs, field.Required(at.Child("name"), ""))
	} else {
		errs = append(errs, wrong(at.Child("name"), ref.Name, path.ValidatePathSegmentName(ref.Name, false))...)
	}
	for i, s := range subjects {
		errs = append(errs, subject(s, namespaced, field.NewPath("subjects").Index(i))...)
	}
	return errs
}

func subject(s rbacv1.Subject, namespaced bool, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if s.Name == "" {
		errs = append(errs, field.Required(at.Child("name"), ""))
	}
	switch s.Kind {
	case rbacv1.ServiceAccountKind:
		if s.Name != "" {
			errs = append(errs, wrong(at.Child("name"), s.Name, validation.ValidateServiceAccountName(s.Name, false))...)
		}
		errs = append(errs, among(at.Child("apiGroup"), s.APIGroup, "")...)
		if s.Namespace == "" && !namespaced {
			errs = append(errs, field.Required(at.Child("namespace"), ""))
		}
	case rbacv1.UserKind, rbacv1.GroupKind:
		errs = append(errs, among(at.Child("apiGroup"), s.APIGroup, rbacv1.GroupName)...)
	default:
		errs = append(errs, field.NotSupported(at.Child("kind"), s.Kind, []string{rbacv1.ServiceAccountKind, rbacv1.UserKind, rbacv1.GroupKind}))
	}
	return errs
}

// sameRole: which role is granted is settled for good, as who may grant it was asked when the binding was made.
func sameRole(ref, was rbacv1.RoleRef) field.ErrorList {
	if ref == was {
		return nil
	}
	return field.ErrorList{field.Invalid(field.NewPath("roleRef"), struct{ APIGroup, Kind, Name string }{ref.APIGroup, ref.Kind, ref.Name}, "cannot change roleRef")}
}
