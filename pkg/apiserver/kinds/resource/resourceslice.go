package resource

import (
	resourcev1 "k8s.io/api/resource/v1"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

// ResourceSlice is the row of resourceslices.
func ResourceSlice() *kind.Def {
	return kind.Row(kind.Def{
		Kind: "ResourceSlice", Resource: "resourceslices",
		Generation: true,
	}, kind.In[resourcev1.ResourceSlice, resourcev1.ResourceSliceList](resourcev1.SchemeGroupVersion, nil))
}
