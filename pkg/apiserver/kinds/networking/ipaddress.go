package networking

import (
	"net/netip"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/staging/api/validate"
)

// IPAddress is the row of ipaddresses.
func IPAddress() *kind.Def {
	return kind.Row(kind.Def{
		Kind: "IPAddress", Resource: "ipaddresses",
		ShortNames: []string{"ip"},
		Check:      kind.Valid(checkAddress, validate.IPAddressUpdate),
		Columns:    kind.Columns("Name ParentRef"),
		Row:        kind.Of(addressRow),
	}, kind.In[networkingv1.IPAddress, networkingv1.IPAddressList](networkingv1.SchemeGroupVersion, nil))
}

func checkAddress(a *networkingv1.IPAddress) field.ErrorList { return validate.IPAddress(a, ipName) }

// ipName tells that a name is an address, in the one way each has of being written.
func ipName(name string, _ bool) []string {
	a, err := netip.ParseAddr(name)
	if err != nil || a.Zone() != "" || a.Is4In6() {
		return []string{"must be a valid address in canonical form"}
	}
	if a.String() != name {
		return []string{"must be a valid address in canonical form, like " + a.String()}
	}
	return nil
}

func addressRow(a *networkingv1.IPAddress) []any {
	parent := "<none>"
	if r := a.Spec.ParentRef; r != nil {
		parent = strings.ToLower(schema.GroupResource{Group: r.Group, Resource: r.Resource}.String())
		if r.Namespace != "" {
			parent += "/" + r.Namespace
		}
		parent += "/" + r.Name
	}
	return []any{a.Name, parent}
}
