package rbac

import (
	rbacv1 "k8s.io/api/rbac/v1"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/staging/api/defaults"
	"github.com/sextant-k8s/sextant/staging/api/validate"
)

// ClusterRoleBinding is the row of clusterrolebindings.
func ClusterRoleBinding() *kind.Def {
	return kind.Row(kind.Def{
		Kind: "ClusterRoleBinding", Resource: "clusterrolebindings",
		CreateOnUpdate: true,
		Check:          kind.Valid(validate.ClusterRoleBinding, validate.ClusterRoleBindingUpdate),
		Columns:        kind.Columns(bindingColumns),
		Row:            kind.Of(clusterRoleBindingRow),
	}, kind.In[rbacv1.ClusterRoleBinding, rbacv1.ClusterRoleBindingList](rbacv1.SchemeGroupVersion, defaults.ClusterRoleBinding))
}

func clusterRoleBindingRow(b *rbacv1.ClusterRoleBinding) []any {
	return bindingRow(&b.ObjectMeta, b.RoleRef, b.Subjects)
}
