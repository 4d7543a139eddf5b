package networking

import (
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/staging/api/defaults"
	"github.com/sextant-k8s/sextant/staging/api/validate"
)

// NetworkPolicy is the row of networkpolicies.
func NetworkPolicy() *kind.Def {
	return kind.Row(kind.Def{
		Kind: "NetworkPolicy", Resource: "networkpolicies",
		ShortNames: []string{"netpol"},
		Namespaced: true,
		Generation: true,
		Check:      kind.Valid(validate.NetworkPolicy, validate.NetworkPolicyUpdate),
		Columns:    kind.Columns("Name Pod-Selector Age"),
		Row:        kind.Of(policyRow),
	}, kind.In[networkingv1.NetworkPolicy, networkingv1.NetworkPolicyList](networkingv1.SchemeGroupVersion, defaults.NetworkPolicy))
}

func policyRow(p *networkingv1.NetworkPolicy) []any {
	return []any{p.Name, metav1.FormatLabelSelector(&p.Spec.PodSelector), kind.Age(p.CreationTimestamp)}
}
