package core

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/staging/api/validate"
)

// Namespace is the row of namespaces. A namespace is held by its own finalizers besides those of its metadata: the
// controller empties it, then takes "kubernetes" off through the finalize subresource.
func Namespace() *kind.Def {
	return kind.Row(kind.Def{
		Kind: "Namespace", Resource: "namespaces", ShortNames: []string{"ns"}, ReturnDeleted: true,
		Verbs: []string{"create", "delete", "get", "list", "patch", "update", "watch"},
		Check: kind.Valid(validate.Namespace, validate.NamespaceUpdate),
		Prepare: kind.On(func(_ *kind.Op, ns, old *corev1.Namespace) {
			if old != nil {
				ns.Spec.Finalizers = old.Spec.Finalizers
				return
			}
			ns.Status.Phase = corev1.NamespaceActive
			for _, f := range ns.Spec.Finalizers {
				if f == corev1.FinalizerKubernetes {
					return
				}
			}
			ns.Spec.Finalizers = append(ns.Spec.Finalizers, corev1.FinalizerKubernetes)
		}),
		OnDelete: func(_ *kind.Op, obj kind.Object) {
			ns := obj.(*corev1.Namespace)
			ns.Status.Phase = corev1.NamespaceTerminating
			ns.DeletionGracePeriodSeconds = nil // it takes as long as it takes
		},
		Held:       func(obj kind.Object) bool { return len(obj.(*corev1.Namespace).Spec.Finalizers) > 0 },
		FieldNames: []string{"status.phase", "name"},
		Fields: kind.Of(func(ns *corev1.Namespace) map[string]string {
			return map[string]string{"status.phase": string(ns.Status.Phase), "name": ns.Name}
		}),
		Columns: kind.Columns("Name Status Age"),
		Row: kind.Of(func(ns *corev1.Namespace) []any {
			return []any{ns.Name, string(ns.Status.Phase), kind.Age(ns.CreationTimestamp)}
		}),
		Subs: []kind.Sub{
			kind.Status,
			{Name: "finalize", AspectVerbs: []string{"update"}, Aspect: &kind.Rules{
				Prepare: kind.On(func(_ *kind.Op, ns, old *corev1.Namespace) { ns.Status = old.Status }),
			}},
		},
	}, kind.In[corev1.Namespace, corev1.NamespaceList](corev1.SchemeGroupVersion, func(ns *corev1.Namespace) {
		if ns.Name == "" {
			return
		}
		if ns.Labels == nil {
			ns.Labels = map[string]string{}
		}
		ns.Labels[corev1.LabelMetadataName] = ns.Name
	}))
}
