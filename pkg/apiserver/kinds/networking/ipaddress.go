package networking

import (
	"net/netip"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

// IPAddress is the row of ipaddresses.
func IPAddress() *kind.Def {
	return kind.Row(kind.Def{
		Kind: "IPAddress", Resource: "ipaddresses",
		ShortNames: []string{"ip"},
		NameCheck:  ipName,
	}, kind.In[networkingv1.IPAddress, networkingv1.IPAddressList](networkingv1.SchemeGroupVersion, nil))
}

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
