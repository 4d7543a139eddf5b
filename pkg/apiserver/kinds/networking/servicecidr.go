package networking

import (
	"strings"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/staging/api/validate"
)

// ServiceCIDR is the row of servicecidrs.
func ServiceCIDR() *kind.Def {
	return kind.Row(kind.Def{
		Kind: "ServiceCIDR", Resource: "servicecidrs",
		Check:   kind.Valid(validate.ServiceCIDR, validate.ServiceCIDRUpdate),
		Subs:    []kind.Sub{kind.Status},
		Columns: kind.Columns("Name CIDRs Age"),
		Row:     kind.Of(cidrRow),
	}, kind.In[networkingv1.ServiceCIDR, networkingv1.ServiceCIDRList](networkingv1.SchemeGroupVersion, nil))
}

func cidrRow(c *networkingv1.ServiceCIDR) []any {
	return []any{c.Name, strings.Join(c.Spec.CIDRs, ","), kind.Age(c.CreationTimestamp)}
}
