package networking

import (
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

// IPAddress is the row of ipaddresses.
func IPAddress() *kind.Def {
	return kind.Row(kind.Def{
		Kind: "IPAddress", Resource: "ipaddresses",
		ShortNames: []string{"ip"},
	}, kind.In[networkingv1.IPAddress, networkingv1.IPAddressList](networkingv1.SchemeGroupVersion, nil))
}
