package resource

import (
	resourcev1 "k8s.io/api/resource/v1"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

// DeviceClass is the row of deviceclasses.
func DeviceClass() *kind.Def {
	return kind.Row(kind.Def{
		Kind: "DeviceClass", Resource: "deviceclasses",
		Generation: true,
		Check:      kind.Ask(checkClass),
		Columns:    kind.Columns("Name Age"),
		Row:        kind.Of(classRow),
	}, kind.In[resourcev1.DeviceClass, resourcev1.DeviceClassList](resourcev1.SchemeGroupVersion, nil))
}

func classRow(o *resourcev1.DeviceClass) []any { return []any{o.Name, kind.Age(o.CreationTimestamp)} }
