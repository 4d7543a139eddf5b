package scheduling

import (
	schedulingv1 "k8s.io/api/scheduling/v1"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/staging/api/defaults"
)

// PriorityClass is the row of priorityclasses.
func PriorityClass() *kind.Def {
	return kind.Row(kind.Def{
		Kind: "PriorityClass", Resource: "priorityclasses",
		ShortNames: []string{"pc"},
		Generation: true,
	}, kind.In[schedulingv1.PriorityClass, schedulingv1.PriorityClassList](schedulingv1.SchemeGroupVersion, defaults.PriorityClass))
}
