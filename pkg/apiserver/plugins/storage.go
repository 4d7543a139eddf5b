package plugins

import (
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/sextant-k8s/sextant/pkg/apiserver/admission"
)

// The finalizers that keep a volume and a claim as long as somebody uses them.
const (
	volumeProtection = "kubernetes.io/pv-protection"
	claimProtection  = "kubernetes.io/pvc-protection"
)

// StorageObjectInUseProtection keeps volumes and claims from going while they are used.
var StorageObjectInUseProtection = admission.Plugin{Name: "StorageObjectInUseProtection", Mutate: func(_ context.Context, r *admission.Request) error {
	if r.Verb != admission.Create || r.Sub != "" {
		return nil
	}
	switch o := r.Object.(type) {
	case *corev1.PersistentVolume:
		o.Finalizers = with(o.Finalizers, volumeProtection)
	case *corev1.PersistentVolumeClaim:
		o.Finalizers = with(o.Finalizers, claimProtection)
	}
	return nil
}}

func with(list []string, s string) []string {
	if slices.Contains(list, s) {
		return list
	}
	return append(list, s)
}
