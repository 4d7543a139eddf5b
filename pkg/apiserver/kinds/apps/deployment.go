package apps

import (
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/staging/api/defaults"
	"github.com/sextant-k8s/sextant/staging/api/validate"
)

// Deployment is the row of deployments.
func Deployment() *kind.Def {
	return kind.Row(kind.Def{
		Kind: "Deployment", Resource: "deployments", ShortNames: []string{"deploy"}, Categories: []string{"all"},
		Namespaced: true, Generation: true,
		Check:   kind.Valid(validate.Deployment, validate.DeploymentUpdate),
		Columns: kind.Columns("Name Ready Up-to-date Available Age Containers* Images* Selector*"),
		Row: kind.Of(func(d *appsv1.Deployment) []any {
			names, images := containers(d.Spec.Template)
			return []any{
				d.Name, fmt.Sprintf("%d/%d", d.Status.ReadyReplicas, number(d.Spec.Replicas)), fmt.Sprint(d.Status.UpdatedReplicas),
				fmt.Sprint(d.Status.AvailableReplicas), kind.Age(d.CreationTimestamp), names, images, metav1.FormatLabelSelector(d.Spec.Selector),
			}
		}),
		Subs: []kind.Sub{scale(func(obj kind.Object) (**int32, int32, *metav1.LabelSelector) {
			d := obj.(*appsv1.Deployment)
			return &d.Spec.Replicas, d.Status.Replicas, d.Spec.Selector
		}), kind.Status},
	}, kind.In[appsv1.Deployment, appsv1.DeploymentList](appsv1.SchemeGroupVersion, defaults.Deployment))
}
