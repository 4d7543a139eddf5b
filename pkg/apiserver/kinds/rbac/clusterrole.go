package rbac

import (
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/validation/path"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

// ClusterRole is the row of clusterroles.
func ClusterRole() *kind.Def {
	return kind.Row(kind.Def{
		Kind: "ClusterRole", Resource: "clusterroles",
		CreateOnUpdate: true,
		NameCheck:      path.ValidatePathSegmentName,
	}, kind.In[rbacv1.ClusterRole, rbacv1.ClusterRoleList](rbacv1.SchemeGroupVersion, nil))
}
