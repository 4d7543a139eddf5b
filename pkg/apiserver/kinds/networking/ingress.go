package networking

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/staging/api/validate"
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
		Check:      kind.Valid(validate.Ingress, validate.IngressUpdate),
		Columns:    kind.Columns("Name Class Hosts Address Ports Age"),
		Row:        kind.Of(ingressRow),
	}, kind.In[networkingv1.Ingress, networkingv1.IngressList](networkingv1.SchemeGroupVersion, nil))
}

func ingressRow(i *networkingv1.Ingress) []any {
	class, ports := "<none>", "80"
	if i.Spec.IngressClassName != nil {
		class = *i.Spec.IngressClassName
	}
	if len(i.Spec.TLS) > 0 {
		ports = "80, 443"
	}
	var at []string
	for _, in := range i.Status.LoadBalancer.Ingress {
		at = append(at, cmp.Or(in.IP, in.Hostname))
	}
	slices.Sort(at)
	return []any{i.Name, class, hosts(i.Spec.Rules), strings.Join(slices.Compact(at), ","), ports, kind.Age(i.CreationTimestamp)}
}

// hosts shows the first three hosts and how many more there are; no host is all of them.
func hosts(rules []networkingv1.IngressRule) string {
	const shown = 3
	var list []string
	for _, r := range rules {
		if r.Host != "" {
			list = append(list, r.Host)
		}
	}
	switch {
	case len(list) == 0:
		return "*"
	case len(list) > shown:
		return fmt.Sprintf("%s + %d more...", strings.Join(list[:shown], ","), len(list)-shown)
	}
	return strings.Join(list, ",")
}
