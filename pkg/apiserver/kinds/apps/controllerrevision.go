package apps

import (
	appsv1 "k8s.io/api/apps/v1"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

// ControllerRevision is the row of controllerrevisions.
func ControllerRevision() *kind.Def {
	return kind.Row(kind.Def{
		Kind: "ControllerRevision", Resource: "controllerrevisions",
		Namespaced: true,
	}, kind.In[appsv1.ControllerRevision, appsv1.ControllerRevisionList](appsv1.SchemeGroupVersion, nil))
}
