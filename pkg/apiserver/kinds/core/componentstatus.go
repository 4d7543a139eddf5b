package core

import (
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

// ComponentStatus is the row of componentstatuses: etcd's health as the server sees it. health answers nil for healthy.
func ComponentStatus(health func(*kind.Op) error) *kind.Def {
	etcd := func(op *kind.Op) *corev1.ComponentStatus {
		c := corev1.ComponentCondition{Type: corev1.ComponentHealthy, Status: corev1.ConditionTrue, Message: "ok"}
		if err := health(op); err != nil {
			c.Status, c.Message, c.Error = corev1.ConditionFalse, "", err.Error()
		}
		return &corev1.ComponentStatus{ObjectMeta: metav1.ObjectMeta{Name: "etcd-0"}, Conditions: []corev1.ComponentCondition{c}}
	}
	v := kind.In[corev1.ComponentStatus, corev1.ComponentStatusList](corev1.SchemeGroupVersion, nil)
	return kind.Row(kind.Def{
		Kind: "ComponentStatus", Resource: "componentstatuses", ShortNames: []string{"cs"}, Verbs: []string{"get", "list"},
		Columns: kind.Columns("Name Status Message Error"),
		Row: kind.Of(func(c *corev1.ComponentStatus) []any {
			status := "Unhealthy"
			if c.Conditions[0].Status == corev1.ConditionTrue {
				status = "Healthy"
			}
			return []any{c.Name, status, c.Conditions[0].Message, c.Conditions[0].Error}
		}),
		Virtual: &kind.Virtual{
			Get: func(op *kind.Op, name string) (kind.Object, error) {
				if name != "etcd-0" {
					return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "componentstatus"}, name)
				}
				return etcd(op), nil
			},
			List: func(op *kind.Op) ([]kind.Object, error) { return []kind.Object{etcd(op)}, nil },
		},
	}, v)
}
