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
		Check:      kind.Ask(checkSlice),
		Columns:    kind.Columns("Name Node Driver Pool Age"),
		Row:        kind.Of(sliceRow),
	}, kind.In[resourcev1.ResourceSlice, resourcev1.ResourceSliceList](resourcev1.SchemeGroupVersion, nil))
}

func sliceRow(s *resourcev1.ResourceSlice) []any {
	node := ""
	if s.Spec.NodeName != nil {
		node = *s.Spec.NodeName
	}
	return []any{s.Name, node, s.Spec.Driver, s.Spec.Pool.Name, kind.Age(s.CreationTimestamp)}
}
