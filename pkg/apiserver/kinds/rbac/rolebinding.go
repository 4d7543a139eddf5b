package rbac

import (
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/validation/path"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/staging/api/defaults"
)

// RoleBinding is the row of rolebindings.
func RoleBinding() *kind.Def {
	return kind.Row(kind.Def{
		Kind: "RoleBinding", Resource: "rolebindings",
		Namespaced:     true,
		CreateOnUpdate: true,
		NameCheck:      path.ValidatePathSegmentName,
	}, kind.In[rbacv1.RoleBinding, rbacv1.RoleBindingList](rbacv1.SchemeGroupVersion, defaults.RoleBinding))
}
