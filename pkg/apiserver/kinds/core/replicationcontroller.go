package core

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/staging/api/defaults"
	"github.com/sextant-k8s/sextant/staging/api/validate"
)

// ReplicationController is the row of replicationcontrollers.
func ReplicationController() *kind.Def {
	return kind.Row(kind.Def{
		Kind: "ReplicationController", Resource: "replicationcontrollers", ShortNames: []string{"rc"}, Categories: []string{"all"},
		Namespaced: true, Prefix: "controllers", Generation: true,
		FieldNames: []string{"status.replicas"},
		Fields: kind.Of(func(c *corev1.ReplicationController) map[string]string {
			return map[string]string{"status.replicas": fmt.Sprint(c.Status.Replicas)}
		}),
		Check:   kind.Valid(validate.ReplicationController, validate.ReplicationControllerUpdate),
		Columns: kind.Columns("Name Desired:integer Current:integer Ready:integer Age Containers* Images* Selector*"),
		Row: kind.Of(func(c *corev1.ReplicationController) []any {
			var names, images string
			if c.Spec.Template != nil {
				names, images = Containers(c.Spec.Template.Spec.Containers)
			}
			return []any{
				c.Name, replicas(c.Spec.Replicas), int64(c.Status.Replicas), int64(c.Status.ReadyReplicas), kind.Age(c.CreationTimestamp),
				names, images, labels.FormatLabels(c.Spec.Selector),
			}
		}),
		Subs: []kind.Sub{kind.Status, {Name: "scale", Scale: &kind.Scale{
			Read: func(obj kind.Object) (int32, int32, string) {
				c := obj.(*corev1.ReplicationController)
				return int32(replicas(c.Spec.Replicas)), c.Status.Replicas, labels.Set(c.Spec.Selector).AsSelector().String()
			},
			Write: func(obj kind.Object, n int32) { obj.(*corev1.ReplicationController).Spec.Replicas = &n },
		}}},
	}, kind.In[corev1.ReplicationController, corev1.ReplicationControllerList](corev1.SchemeGroupVersion, defaults.ReplicationController))
}

func replicas(n *int32) int64 {
	if n == nil {
		return 0
	}
	return int64(*n)
}
