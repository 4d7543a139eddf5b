package rbac

import (
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/staging/api/defaults"
)

// ClusterRoleBinding is the row of clusterrolebindings.
func ClusterRoleBinding() *kind.Def {
	return kind.Row(kind.Def{
		Kind: "ClusterRoleBinding", Resource: "clusterrolebindings",
		CreateOnUpdate: true,
		Check: kind.Ask(func(op *kind.Op, b, old *rbacv1.ClusterRoleBinding) field.ErrorList {
			if old == nil {
				return checkBinding(op, &b.ObjectMeta, nil, b.RoleRef, rbacv1.RoleRef{})
			}
			return checkBinding(op, &b.ObjectMeta, &old.ObjectMeta, b.RoleRef, old.RoleRef)
		}),
		Columns: kind.Columns(bindingColumns),
		Row:     kind.Of(clusterRoleBindingRow),
	}, kind.In[rbacv1.ClusterRoleBinding, rbacv1.ClusterRoleBindingList](rbacv1.SchemeGroupVersion, defaults.ClusterRoleBinding))
}

func clusterRoleBindingRow(b *rbacv1.ClusterRoleBinding) []any {
	return bindingRow(&b.ObjectMeta, b.RoleRef, b.Subjects)
}
