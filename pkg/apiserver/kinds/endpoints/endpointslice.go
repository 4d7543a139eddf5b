package endpoints

import (
	"fmt"
	"strconv"
	"strings"

	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/staging/api/defaults"
	"github.com/sextant-k8s/sextant/staging/api/validate"
)

// EndpointSlice is the row of endpointslices.
func EndpointSlice() *kind.Def {
	return kind.Row(kind.Def{
		Kind: "EndpointSlice", Resource: "endpointslices",
		Namespaced: true,
		Prepare:    kind.On(countChanges),
		Check:      kind.Valid(validate.EndpointSlice, validate.EndpointSliceUpdate),
		Columns:    kind.Columns("Name AddressType Ports Endpoints Age"),
		Row:        kind.Of(row),
	}, kind.In[discoveryv1.EndpointSlice, discoveryv1.EndpointSliceList](discoveryv1.SchemeGroupVersion, defaults.EndpointSlice))
}

// countChanges counts in the generation also what changes of the labels: they say whose the slice is and who reads it.
func countChanges(_ *kind.Op, s, old *discoveryv1.EndpointSlice) {
	if old == nil {
		s.Generation = 1
		return
	}
	s.Generation = old.Generation
	is, was := *s, *old
	is.TypeMeta, was.TypeMeta = metav1.TypeMeta{}, metav1.TypeMeta{}
	is.ObjectMeta, was.ObjectMeta = metav1.ObjectMeta{Labels: s.Labels}, metav1.ObjectMeta{Labels: old.Labels}
	if !equality.Semantic.DeepEqual(is, was) {
		s.Generation++
	}
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
