package networking

import (
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/staging/api/defaults"
)

// IngressClass is the row of ingressclasses.
func IngressClass() *kind.Def {
	return kind.Row(kind.Def{
		Kind: "IngressClass", Resource: "ingressclasses",
		Generation: true,
	}, kind.In[networkingv1.IngressClass, networkingv1.IngressClassList](networkingv1.SchemeGroupVersion, defaults.IngressClass))
}
