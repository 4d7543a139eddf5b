package core

import (
	"fmt"
	"net"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/staging/api/defaults"
	"github.com/sextant-k8s/sextant/staging/api/validate"
)

// Endpoints is the row of endpoints.
func Endpoints() *kind.Def {
	return kind.Row(kind.Def{
		Kind: "Endpoints", Resource: "endpoints",
		ShortNames:     []string{"ep"},
		Namespaced:     true,
		Prefix:         "services/endpoints",
		CreateOnUpdate: true,
		Check:          kind.Valid(validate.Endpoints, validate.EndpointsUpdate),
		Columns:        kind.Columns("Name Endpoints Age"),
		Row:            kind.Of(endpointsRow),
	}, kind.In[corev1.Endpoints, corev1.EndpointsList](corev1.SchemeGroupVersion, defaults.Endpoints))
}

func endpointsRow(e *corev1.Endpoints) []any {
	return []any{e.Name, addresses(e.Subsets), kind.Age(e.CreationTimestamp)}
}

// addresses shows the first three addresses, each with its port, and how many more there are.
func addresses(subsets []corev1.EndpointSubset) string {
	const shown = 3
	var list []string
	for _, s := range subsets {
		if len(s.Ports) == 0 {
			for _, a := range s.Addresses {
				list = append(list, a.IP)
			}
		}
		for _, p := range s.Ports {
			for _, a := range s.Addresses {
				list = append(list, net.JoinHostPort(a.IP, strconv.Itoa(int(p.Port))))
			}
		}
	}
	if len(list) > shown {
		return fmt.Sprintf("%s + %d more...", strings.Join(list[:shown], ","), len(list)-shown)
	}
	return kind.None(strings.Join(list, ","))
}
