package flowcontrol

import (
	flowcontrolv1 "k8s.io/api/flowcontrol/v1"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

// PriorityLevelConfiguration is the row of prioritylevelconfigurations.
func PriorityLevelConfiguration() *kind.Def {
	return kind.Row(kind.Def{
		Kind: "PriorityLevelConfiguration", Resource: "prioritylevelconfigurations",
		Generation: true,
		Subs:       []kind.Sub{kind.Status},
	}, kind.In[flowcontrolv1.PriorityLevelConfiguration, flowcontrolv1.PriorityLevelConfigurationList](flowcontrolv1.SchemeGroupVersion, nil))
}
