package apps

import (
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/staging/api/defaults"
	"github.com/sextant-k8s/sextant/staging/api/validate"
)

// StatefulSet is the row of statefulsets.
func StatefulSet() *kind.Def {
	v1 := kind.In[appsv1.StatefulSet, appsv1.StatefulSetList](appsv1.SchemeGroupVersion, defaults.StatefulSet)
	v1.Read = func(obj kind.Object) {
		for i := range obj.(*appsv1.StatefulSet).Spec.VolumeClaimTemplates {
			t := &obj.(*appsv1.StatefulSet).Spec.VolumeClaimTemplates[i]
			t.APIVersion, t.Kind = "v1", "PersistentVolumeClaim"
		}
	}
	return kind.Row(kind.Def{
		Kind: "StatefulSet", Resource: "statefulsets", ShortNames: []string{"sts"}, Categories: []string{"all"},
		Namespaced: true, Generation: true,
		Check:   kind.Valid(validate.StatefulSet, validate.StatefulSetUpdate),
		Columns: kind.Columns("Name Ready Age Containers* Images*"),
		Row: kind.Of(func(s *appsv1.StatefulSet) []any {
			names, images := containers(s.Spec.Template)
			return []any{s.Name, fmt.Sprintf("%d/%d", s.Status.ReadyReplicas, number(s.Spec.Replicas)), kind.Age(s.CreationTimestamp), names, images}
		}),
		Subs: []kind.Sub{scale(func(obj kind.Object) (**int32, int32, *metav1.LabelSelector) {
			s := obj.(*appsv1.StatefulSet)
			return &s.Spec.Replicas, s.Status.Replicas, s.Spec.Selector
		}), kind.Status},
	}, v1)
}
