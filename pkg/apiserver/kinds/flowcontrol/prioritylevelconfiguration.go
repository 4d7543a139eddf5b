package flowcontrol

import (
	flowcontrolv1 "k8s.io/api/flowcontrol/v1"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/staging/api/defaults"
	"github.com/sextant-k8s/sextant/staging/api/validate"
)

// PriorityLevelConfiguration is the row of prioritylevelconfigurations.
func PriorityLevelConfiguration() *kind.Def {
	return kind.Row(kind.Def{
		Kind: "PriorityLevelConfiguration", Resource: "prioritylevelconfigurations",
		Generation: true,
		Check:      kind.Valid(validate.PriorityLevelConfiguration, validate.PriorityLevelConfigurationUpdate),
		Subs:       []kind.Sub{kind.Status},
		Columns:    kind.Columns("Name Type NominalConcurrencyShares Queues HandSize QueueLengthLimit Age"),
		Row:        kind.Of(levelRow),
	}, kind.In[flowcontrolv1.PriorityLevelConfiguration, flowcontrolv1.PriorityLevelConfigurationList](flowcontrolv1.SchemeGroupVersion, defaults.PriorityLevelConfiguration))
}

func levelRow(p *flowcontrolv1.PriorityLevelConfiguration) []any {
	var shares, queues, hand, length any = "<none>", "<none>", "<none>", "<none>"
	if e := p.Spec.Exempt; e != nil && e.NominalConcurrencyShares != nil {
		shares = int64(*e.NominalConcurrencyShares)
	}
	if l := p.Spec.Limited; l != nil {
		if l.NominalConcurrencyShares != nil {
			shares = int64(*l.NominalConcurrencyShares)
		}
		if q := l.LimitResponse.Queuing; q != nil {
			queues, hand, length = int64(q.Queues), int64(q.HandSize), int64(q.QueueLengthLimit)
		}
	}
	return []any{p.Name, string(p.Spec.Type), shares, queues, hand, length, kind.Age(p.CreationTimestamp)}
}
