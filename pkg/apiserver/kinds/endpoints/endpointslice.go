package endpoints

import (
	"fmt"
	"strconv"
	"strings"

	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/staging/api/defaults"
	"github.com/sextant-k8s/sextant/staging/api/validate"
)

// EndpointSlice is the row of endpointslices.
func EndpointSlice() *kind.Def {
	return kind.Row(kind.Def{
		Kind: "EndpointSlice", Resource: "endpointslices",
		Namespaced: true,
		Generation: true,
		Check:      kind.Valid(validate.EndpointSlice, validate.EndpointSliceUpdate),
		Columns:    kind.Columns("Name AddressType Ports Endpoints Age"),
		Row:        kind.Of(row),
	}, kind.In[discoveryv1.EndpointSlice, discoveryv1.EndpointSliceList](discoveryv1.SchemeGroupVersion, defaults.EndpointSlice))
}

func row(s *discoveryv1.EndpointSlice) []any {
	var ports, addresses []string
	for _, p := range s.Ports {
		switch {
		case p.Port != nil:
			ports = append(ports, strconv.Itoa(int(*p.Port)))
		case p.Name != nil:
			ports = append(ports, *p.Name)
		default:
			ports = append(ports, "*")
		}
	}
	for _, e := range s.Endpoints {
		addresses = append(addresses, e.Addresses...)
	}
	return []any{s.Name, string(s.AddressType), some(ports), some(addresses), kind.Age(s.CreationTimestamp)}
}

// some shows the first three and how many more there are.
func some(list []string) string {
	const shown = 3
	switch {
	case len(list) > shown:
		return fmt.Sprintf("%s + %d more...", strings.Join(list[:shown], ","), len(list)-shown)
	case len(list) == 0:
		return "<unset>"
	}
	return strings.Join(list, ",")
}
