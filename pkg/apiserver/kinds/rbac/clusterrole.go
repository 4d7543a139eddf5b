package rbac

import (
	rbacv1 "k8s.io/api/rbac/v1"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/staging/api/validate"
)

// ClusterRole is the row of clusterroles.
func ClusterRole() *kind.Def {
	return kind.Row(kind.Def{
		Kind: "ClusterRole", Resource: "clusterroles",
		CreateOnUpdate: true,
		Check:          kind.Valid(validate.ClusterRole, validate.ClusterRoleUpdate),
	}, kind.In[rbacv1.ClusterRole, rbacv1.ClusterRoleList](rbacv1.SchemeGroupVersion, nil))
}
