package policy

import (
	policyv1 "k8s.io/api/policy/v1"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/staging/api/validate"
)

// PodDisruptionBudget is the row of poddisruptionbudgets.
func PodDisruptionBudget() *kind.Def {
	return kind.Row(kind.Def{
		Kind: "PodDisruptionBudget", Resource: "poddisruptionbudgets",
		ShortNames:          []string{"pdb"},
		NeedVersionOnUpdate: true,
		Namespaced:          true,
		Generation:          true,
		Subs:                []kind.Sub{kind.Status},
		Check:               kind.Valid(validate.PodDisruptionBudget, validate.PodDisruptionBudgetUpdate),
		Columns:             kind.Columns("Name Min_Available Max_Unavailable Allowed_Disruptions:integer Age"),
		Row:                 kind.Of(budgetRow),
	}, kind.In[policyv1.PodDisruptionBudget, policyv1.PodDisruptionBudgetList](policyv1.SchemeGroupVersion, nil))
}

func budgetRow(b *policyv1.PodDisruptionBudget) []any {
	least, most := "N/A", "N/A"
	if b.Spec.MinAvailable != nil {
		least = b.Spec.MinAvailable.String()
	}
	if b.Spec.MaxUnavailable != nil {
		most = b.Spec.MaxUnavailable.String()
	}
	return []any{b.Name, least, most, int64(b.Status.DisruptionsAllowed), kind.Age(b.CreationTimestamp)}
}
