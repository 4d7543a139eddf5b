package core

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

// ComponentStatus is the row of componentstatuses: each etcd's health as the server sees it. health answers nil for healthy.
func ComponentStatus(health []func(*kind.Op) error) *kind.Def {
	etcd := func(op *kind.Op, n int) *corev1.ComponentStatus {
		c := corev1.ComponentCondition{Type: corev1.ComponentHealthy, Status: corev1.ConditionTrue, Message: "ok"}
		if err := health[n](op); err != nil {
			c.Status, c.Message, c.Error = corev1.ConditionFalse, "", err.Error()
		}
		return &corev1.ComponentStatus{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("etcd-%d", n)}, Conditions: []corev1.ComponentCondition{c}}
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
				for n := range health {
					if name == fmt.Sprintf("etcd-%d", n) {
						return etcd(op, n), nil
					}
				}
				return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "componentstatus"}, name)
			},
			List: func(op *kind.Op) ([]kind.Object, error) {
				var all []kind.Object
				for n := range health {
					all = append(all, etcd(op, n))
				}
				return all, nil
			},
		},
	}, v)
}
