package plugins

import (
	"context"
	"errors"
	"slices"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

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

// PersistentVolumeClaimResize lets only claims grow whose volume can.
var PersistentVolumeClaimResize = admission.Plugin{Name: "PersistentVolumeClaimResize", Validate: func(ctx context.Context, r *admission.Request) error {
	c, _ := r.Object.(*corev1.PersistentVolumeClaim)
	old, _ := r.Old.(*corev1.PersistentVolumeClaim)
	if c == nil || old == nil || r.Verb != admission.Update || r.Sub != "" {
		return nil
	}
	was, now := old.Spec.Resources.Requests[corev1.ResourceStorage], c.Spec.Resources.Requests[corev1.ResourceStorage]
	if now.Cmp(was) <= 0 {
		return nil
	}
	if old.Status.Phase != corev1.ClaimBound {
		return errors.New("Only bound persistent volume claims can be expanded") //nolint:staticcheck,revive // as clients know it
	}
	refused := errors.New("only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize")
	name := className(c)
	if name == "" || name != className(old) {
		return refused
	}
	obj, err := r.Env.Get(ctx, storageClasses, "", name)
	if apierrors.IsNotFound(err) {
		obj, err = r.Env.GetFresh(ctx, storageClasses, "", name)
	}
	if err != nil {
		return refused
	}
	if grows := obj.(*storagev1.StorageClass).AllowVolumeExpansion; grows == nil || !*grows {
		return refused
	}
	return nil
}}

// className is the storage class of a claim, "" if it has none.
func className(c *corev1.PersistentVolumeClaim) string {
	if name, ok := c.Annotations[corev1.BetaStorageClassAnnotation]; ok {
		return name
	}
	if c.Spec.StorageClassName != nil {
		return *c.Spec.StorageClassName
	}
	return ""
}
