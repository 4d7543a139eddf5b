package resource

import (
	resourcev1 "k8s.io/api/resource/v1"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/staging/api/defaults"
)

// ResourceClaimTemplate is the row of resourceclaimtemplates.
func ResourceClaimTemplate() *kind.Def {
	return kind.Row(kind.Def{
		Kind: "ResourceClaimTemplate", Resource: "resourceclaimtemplates",
		Namespaced: true,
		Check:      kind.Ask(checkTemplate),
		Columns:    kind.Columns("Name Age"),
		Row:        kind.Of(templateRow),
	}, kind.In[resourcev1.ResourceClaimTemplate, resourcev1.ResourceClaimTemplateList](resourcev1.SchemeGroupVersion, defaults.ResourceClaimTemplate))
}

func templateRow(o *resourcev1.ResourceClaimTemplate) []any {
	return []any{o.Name, kind.Age(o.CreationTimestamp)}
}
