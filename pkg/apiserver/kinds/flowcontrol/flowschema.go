package flowcontrol

import (
	flowcontrolv1 "k8s.io/api/flowcontrol/v1"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/staging/api/defaults"
	"github.com/sextant-k8s/sextant/staging/api/validate"
)

// FlowSchema is the row of flowschemas.
func FlowSchema() *kind.Def {
	return kind.Row(kind.Def{
		Kind: "FlowSchema", Resource: "flowschemas",
		Generation: true,
		Check:      kind.Valid(validate.FlowSchema, validate.FlowSchemaUpdate),
		Subs:       []kind.Sub{kind.Status},
		Columns:    kind.Columns("Name PriorityLevel MatchingPrecedence DistinguisherMethod Age MissingPL"),
		Row:        kind.Of(schemaRow),
	}, kind.In[flowcontrolv1.FlowSchema, flowcontrolv1.FlowSchemaList](flowcontrolv1.SchemeGroupVersion, defaults.FlowSchema))
}

func schemaRow(s *flowcontrolv1.FlowSchema) []any {
	method, missing := "<none>", "?"
	if s.Spec.DistinguisherMethod != nil {
		method = string(s.Spec.DistinguisherMethod.Type)
	}
	for _, c := range s.Status.Conditions {
		if c.Type == flowcontrolv1.FlowSchemaConditionDangling {
			missing = string(c.Status)
		}
	}
	return []any{
		s.Name, s.Spec.PriorityLevelConfiguration.Name, int64(s.Spec.MatchingPrecedence), method, kind.Age(s.CreationTimestamp), missing,
	}
}
