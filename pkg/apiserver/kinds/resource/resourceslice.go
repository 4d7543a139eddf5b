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
		FieldNames: []string{resourcev1.ResourceSliceSelectorNodeName, resourcev1.ResourceSliceSelectorDriver, resourcev1.ResourceSliceSelectorPoolName},
		Fields: kind.Of(func(s *resourcev1.ResourceSlice) map[string]string {
			return map[string]string{resourcev1.ResourceSliceSelectorNodeName: nodeOf(s), resourcev1.ResourceSliceSelectorDriver: s.Spec.Driver,
				resourcev1.ResourceSliceSelectorPoolName: s.Spec.Pool.Name}
		}),
		Check:   kind.Ask(checkSlice),
		Columns: kind.Columns("Name Node Driver Pool Age"),
		Row:     kind.Of(sliceRow),
	}, kind.In[resourcev1.ResourceSlice, resourcev1.ResourceSliceList](resourcev1.SchemeGroupVersion, nil))
}

func sliceRow(s *resourcev1.ResourceSlice) []any {
	return []any{s.Name, nodeOf(s), s.Spec.Driver, s.Spec.Pool.Name, kind.Age(s.CreationTimestamp)}
}

// nodeOf is the one node that has the devices, empty where it is not one.
func nodeOf(s *resourcev1.ResourceSlice) string {
	if s.Spec.NodeName == nil {
		return ""
	}
	return *s.Spec.NodeName
}
