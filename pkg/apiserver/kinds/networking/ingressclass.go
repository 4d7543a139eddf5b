package networking

import (
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/staging/api/defaults"
	"github.com/sextant-k8s/sextant/staging/api/validate"
)

// IngressClass is the row of ingressclasses.
func IngressClass() *kind.Def {
	return kind.Row(kind.Def{
		Kind: "IngressClass", Resource: "ingressclasses",
		Generation: true,
		Check:      kind.Valid(validate.IngressClass, validate.IngressClassUpdate),
		Columns:    kind.Columns("Name Controller Parameters Age"),
		Row:        kind.Of(classRow),
	}, kind.In[networkingv1.IngressClass, networkingv1.IngressClassList](networkingv1.SchemeGroupVersion, defaults.IngressClass))
}

func classRow(c *networkingv1.IngressClass) []any {
	parameters := "<none>"
	if p := c.Spec.Parameters; p != nil {
		parameters = p.Kind + "/" + p.Name
		if p.APIGroup != nil {
			parameters = p.Kind + "." + *p.APIGroup + "/" + p.Name
		}
	}
	return []any{c.Name, c.Spec.Controller, parameters, kind.Age(c.CreationTimestamp)}
}
