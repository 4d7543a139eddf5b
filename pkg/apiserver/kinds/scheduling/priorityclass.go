package scheduling

import (
	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/staging/api/defaults"
	"github.com/sextant-k8s/sextant/staging/api/validate"
)

// PriorityClass is the row of priorityclasses.
func PriorityClass() *kind.Def {
	return kind.Row(kind.Def{
		Kind: "PriorityClass", Resource: "priorityclasses",
		ShortNames: []string{"pc"},
		Prepare: kind.On(func(_ *kind.Op, c, old *schedulingv1.PriorityClass) {
			c.Generation = 1 // and stays
			if old != nil {
				c.Generation = old.Generation
			}
		}),
		Check:   kind.Valid(validate.PriorityClass, validate.PriorityClassUpdate),
		Columns: kind.Columns("Name Value:integer Global-Default:boolean Age PreemptionPolicy"),
		Row:     kind.Of(row),
	}, kind.In[schedulingv1.PriorityClass, schedulingv1.PriorityClassList](schedulingv1.SchemeGroupVersion, defaults.PriorityClass))
}

func row(c *schedulingv1.PriorityClass) []any {
	policy := corev1.PreemptLowerPriority
	if c.PreemptionPolicy != nil {
		policy = *c.PreemptionPolicy
	}
	return []any{c.Name, int64(c.Value), c.GlobalDefault, kind.Age(c.CreationTimestamp), string(policy)}
}
