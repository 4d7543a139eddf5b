package rbac

import (
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/api/validation/path"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

// checkBinding checks what both kinds of binding share. Which role is granted is settled for good: who may grant it was
// asked when the binding was made.
func checkBinding(op *kind.Op, m, old *metav1.ObjectMeta, ref, was rbacv1.RoleRef) field.ErrorList {
	errs := validation.ValidateObjectMeta(m, op.Def.Namespaced, path.ValidatePathSegmentName, field.NewPath("metadata"))
	at := field.NewPath("roleRef")
	if old != nil {
		errs = append(errs, validation.ValidateObjectMetaUpdate(m, old, field.NewPath("metadata"))...)
		if ref != was {
			errs = append(errs, field.Invalid(at, struct{ APIGroup, Kind, Name string }{ref.APIGroup, ref.Kind, ref.Name}, "cannot change roleRef"))
		}
	}
	if ref.APIGroup != rbacv1.GroupName {
		errs = append(errs, field.NotSupported(at.Child("apiGroup"), ref.APIGroup, []string{rbacv1.GroupName}))
	}
	kinds := []string{"ClusterRole"}
	if op.Def.Namespaced {
		kinds = []string{"Role", "ClusterRole"}
	}
	known := false
	for _, k := range kinds {
		known = known || k == ref.Kind
	}
	if !known {
		errs = append(errs, field.NotSupported(at.Child("kind"), ref.Kind, kinds))
	}
	if ref.Name == "" {
		return append(errs, field.Required(at.Child("name"), ""))
	}
	for _, msg := range path.ValidatePathSegmentName(ref.Name, false) {
		errs = append(errs, field.Invalid(at.Child("name"), ref.Name, msg))
	}
	return errs
}

const bindingColumns = "Name Role Age Users* Groups* ServiceAccounts*"

// bindingRow shows which role is granted, and to whom by kind of subject.
func bindingRow(m *metav1.ObjectMeta, ref rbacv1.RoleRef, subjects []rbacv1.Subject) []any {
	var users, groups, accounts []string
	for _, s := range subjects {
		switch s.Kind {
		case rbacv1.UserKind:
			users = append(users, s.Name)
		case rbacv1.GroupKind:
			groups = append(groups, s.Name)
		case rbacv1.ServiceAccountKind:
			accounts = append(accounts, s.Namespace+"/"+s.Name)
		}
	}
	return []any{
		m.Name, ref.Kind + "/" + ref.Name, kind.Age(m.CreationTimestamp),
		strings.Join(users, ", "), strings.Join(groups, ", "), strings.Join(accounts, ", "),
	}
}
