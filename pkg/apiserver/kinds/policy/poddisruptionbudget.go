package policy

import (
	policyv1 "k8s.io/api/policy/v1"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

// PodDisruptionBudget is the row of poddisruptionbudgets.
func PodDisruptionBudget() *kind.Def {
	return kind.Row(kind.Def{
		Kind: "PodDisruptionBudget", Resource: "poddisruptionbudgets",
		ShortNames: []string{"pdb"},
		Namespaced: true,
		Generation: true,
		Subs:       []kind.Sub{kind.Status},
	}, kind.In[policyv1.PodDisruptionBudget, policyv1.PodDisruptionBudgetList](policyv1.SchemeGroupVersion, nil))
}
