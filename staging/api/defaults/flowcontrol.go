package defaults

import flowcontrolv1 "k8s.io/api/flowcontrol/v1"

// FlowSchema fills in when a flow schema is asked.
func FlowSchema(s *flowcontrolv1.FlowSchema) {
	fill(&s.Spec.MatchingPrecedence, 1000)
}

// PriorityLevelConfiguration fills in what a priority level is given.
func PriorityLevelConfiguration(l *flowcontrolv1.PriorityLevelConfiguration) {
	if l.Spec.Type == flowcontrolv1.PriorityLevelEnablementExempt {
		if l.Spec.Exempt == nil {
			l.Spec.Exempt = &flowcontrolv1.ExemptPriorityLevelConfiguration{}
		}
		set(&l.Spec.Exempt.NominalConcurrencyShares, 0)
		set(&l.Spec.Exempt.LendablePercent, 0)
	}
	m := l.Spec.Limited
	if m == nil {
		return
	}
	set(&m.NominalConcurrencyShares, 30)
	set(&m.LendablePercent, 0)
	if q := m.LimitResponse.Queuing; q != nil {
		fill(&q.HandSize, 8)
		fill(&q.Queues, 64)
		fill(&q.QueueLengthLimit, 50)
	}
}
