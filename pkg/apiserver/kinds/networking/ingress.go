package networking

import (
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

// Ingress is the row of ingresses.
func Ingress() *kind.Def {
	return kind.Row(kind.Def{
		Kind: "Ingress", Resource: "ingresses",
		ShortNames: []string{"ing"},
		Namespaced: true,
		Prefix:     "ingress",
		Generation: true,
		Subs:       []kind.Sub{kind.Status},
	}, kind.In[networkingv1.Ingress, networkingv1.IngressList](networkingv1.SchemeGroupVersion, nil))
}
