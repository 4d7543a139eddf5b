package endpoints

import (
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/staging/api/defaults"
)

// EndpointSlice is the row of endpointslices.
func EndpointSlice() *kind.Def {
	return kind.Row(kind.Def{
		Kind: "EndpointSlice", Resource: "endpointslices",
		Namespaced: true,
		Generation: true,
	}, kind.In[discoveryv1.EndpointSlice, discoveryv1.EndpointSliceList](discoveryv1.SchemeGroupVersion, defaults.EndpointSlice))
}
