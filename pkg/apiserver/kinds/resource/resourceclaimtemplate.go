package resource

import (
	resourcev1 "k8s.io/api/resource/v1"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

// ResourceClaimTemplate is the row of resourceclaimtemplates.
func ResourceClaimTemplate() *kind.Def {
	return kind.Row(kind.Def{
		Kind: "ResourceClaimTemplate", Resource: "resourceclaimtemplates",
		Namespaced: true,
	}, kind.In[resourcev1.ResourceClaimTemplate, resourcev1.ResourceClaimTemplateList](resourcev1.SchemeGroupVersion, nil))
}
