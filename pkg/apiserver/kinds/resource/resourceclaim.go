package resource

import (
	resourcev1 "k8s.io/api/resource/v1"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

// ResourceClaim is the row of resourceclaims.
func ResourceClaim() *kind.Def {
	return kind.Row(kind.Def{
		Kind: "ResourceClaim", Resource: "resourceclaims",
		Namespaced: true,
		Subs:       []kind.Sub{kind.Status},
	}, kind.In[resourcev1.ResourceClaim, resourcev1.ResourceClaimList](resourcev1.SchemeGroupVersion, nil))
}
