package extensions

import (
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

// CustomResourceDefinition is the row of customresourcedefinitions.
func CustomResourceDefinition() *kind.Def {
	return kind.Row(kind.Def{
		Kind: "CustomResourceDefinition", Resource: "customresourcedefinitions",
		ShortNames: []string{"crd", "crds"},
		Categories: []string{"api-extensions"},
		Prefix:     "apiextensions.k8s.io/customresourcedefinitions",
		Generation: true,
		Subs:       []kind.Sub{kind.Status},
	}, kind.In[apiextensionsv1.CustomResourceDefinition, apiextensionsv1.CustomResourceDefinitionList](apiextensionsv1.SchemeGroupVersion, nil))
}
