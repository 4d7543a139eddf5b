package flowcontrol

import (
	flowcontrolv1 "k8s.io/api/flowcontrol/v1"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

// FlowSchema is the row of flowschemas.
func FlowSchema() *kind.Def {
	return kind.Row(kind.Def{
		Kind: "FlowSchema", Resource: "flowschemas",
		Generation: true,
		Subs:       []kind.Sub{kind.Status},
	}, kind.In[flowcontrolv1.FlowSchema, flowcontrolv1.FlowSchemaList](flowcontrolv1.SchemeGroupVersion, nil))
}
