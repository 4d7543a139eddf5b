package apps

import (
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/staging/api/validate"
)

// ControllerRevision is the row of controllerrevisions.
func ControllerRevision() *kind.Def {
	return kind.Row(kind.Def{
		Kind: "ControllerRevision", Resource: "controllerrevisions",
		Namespaced: true,
		Check:      kind.Valid(validate.ControllerRevision, validate.ControllerRevisionUpdate),
		Columns:    kind.Columns("Name Controller Revision Age"),
		Row:        kind.Of(revisionRow),
	}, kind.In[appsv1.ControllerRevision, appsv1.ControllerRevisionList](appsv1.SchemeGroupVersion, nil))
}

func revisionRow(r *appsv1.ControllerRevision) []any {
	controller := "<none>"
	if o := metav1.GetControllerOf(r); o != nil {
		gk := schema.FromAPIVersionAndKind(o.APIVersion, o.Kind).GroupKind()
		controller = strings.ToLower(gk.String()) + "/" + o.Name
	}
	return []any{r.Name, controller, r.Revision, kind.Age(r.CreationTimestamp)}
}
