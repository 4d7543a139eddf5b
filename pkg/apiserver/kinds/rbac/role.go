package rbac

import (
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/validation/path"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

// Role is the row of roles.
func Role() *kind.Def {
	return kind.Row(kind.Def{
		Kind: "Role", Resource: "roles",
		Namespaced:     true,
		CreateOnUpdate: true,
		NameCheck:      path.ValidatePathSegmentName,
	}, kind.In[rbacv1.Role, rbacv1.RoleList](rbacv1.SchemeGroupVersion, nil))
}
