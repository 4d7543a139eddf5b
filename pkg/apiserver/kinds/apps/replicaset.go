package apps

import (
	"fmt"
	appsv1 "k8s.io/api/apps/v1"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/staging/api/defaults"
	"github.com/sextant-k8s/sextant/staging/api/validate"
)

// ReplicaSet is the row of replicasets.
func ReplicaSet() *kind.Def {
	return kind.Row(kind.Def{
		Kind: "ReplicaSet", Resource: "replicasets", ShortNames: []string{"rs"}, Categories: []string{"all"},
		Namespaced: true, Generation: true,
		FieldNames: []string{"status.replicas"},
		Fields: kind.Of(func(r *appsv1.ReplicaSet) map[string]string {
			return map[string]string{"status.replicas": fmt.Sprint(r.Status.Replicas)}
		}),
		Check:   kind.Valid(validate.ReplicaSet, validate.ReplicaSetUpdate),
		Columns: kind.Columns("Name Desired:integer Current:integer Ready:integer Age Containers* Images* Selector*"),
		Row: kind.Of(func(r *appsv1.ReplicaSet) []any {
			names, images := containers(r.Spec.Template)
			return []any{
				r.Name, int64(number(r.Spec.Replicas)), int64(r.Status.Replicas), int64(r.Status.ReadyReplicas), kind.Age(r.CreationTimestamp),
				names, images, metav1.FormatLabelSelector(r.Spec.Selector),
			}
		}),
		Subs: []kind.Sub{scale(func(obj kind.Object) (**int32, int32, *metav1.LabelSelector) {
			r := obj.(*appsv1.ReplicaSet)
			return &r.Spec.Replicas, r.Status.Replicas, r.Spec.Selector
		}), kind.Status},
	}, kind.In[appsv1.ReplicaSet, appsv1.ReplicaSetList](appsv1.SchemeGroupVersion, defaults.ReplicaSet))
}
