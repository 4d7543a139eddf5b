package rbac

import (
	rbacv1 "k8s.io/api/rbac/v1"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/staging/api/validate"
)

// Role is the row of roles.
func Role() *kind.Def {
	return kind.Row(kind.Def{
		Kind: "Role", Resource: "roles",
		Namespaced:     true,
		CreateOnUpdate: true,
		Check:          kind.Valid(validate.Role, validate.RoleUpdate),
	}, kind.In[rbacv1.Role, rbacv1.RoleList](rbacv1.SchemeGroupVersion, nil))
}
