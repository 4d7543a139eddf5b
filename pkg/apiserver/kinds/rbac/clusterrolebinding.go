package rbac

import (
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/validation/path"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/staging/api/defaults"
)

// ClusterRoleBinding is the row of clusterrolebindings.
func ClusterRoleBinding() *kind.Def {
	return kind.Row(kind.Def{
		Kind: "ClusterRoleBinding", Resource: "clusterrolebindings",
		CreateOnUpdate: true,
		NameCheck:      path.ValidatePathSegmentName,
	}, kind.In[rbacv1.ClusterRoleBinding, rbacv1.ClusterRoleBindingList](rbacv1.SchemeGroupVersion, defaults.ClusterRoleBinding))
}
