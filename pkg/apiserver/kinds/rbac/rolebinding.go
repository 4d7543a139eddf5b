package rbac

import (
	rbacv1 "k8s.io/api/rbac/v1"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/staging/api/defaults"
	"github.com/sextant-k8s/sextant/staging/api/validate"
)

// RoleBinding is the row of rolebindings.
func RoleBinding() *kind.Def {
	return kind.Row(kind.Def{
		Kind: "RoleBinding", Resource: "rolebindings",
		Namespaced:     true,
		CreateOnUpdate: true,
		Check:          kind.Valid(validate.RoleBinding, validate.RoleBindingUpdate),
		Columns:        kind.Columns(bindingColumns),
		Row:            kind.Of(roleBindingRow),
	}, kind.In[rbacv1.RoleBinding, rbacv1.RoleBindingList](rbacv1.SchemeGroupVersion, defaults.RoleBinding))
}

func roleBindingRow(b *rbacv1.RoleBinding) []any {
	return bindingRow(&b.ObjectMeta, b.RoleRef, b.Subjects)
}
