package attributesclass

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
)

const finalizer = "kubernetes.io/vac-protection"

// byClaim answers the classes that a claim has, had until now or is to get.
func byClaim(c *corev1.PersistentVolumeClaim) []string {
	names := []*string{c.Spec.VolumeAttributesClassName, c.Status.CurrentVolumeAttributesClassName}
	if m := c.Status.ModifyVolumeStatus; m != nil {
		names = append(names, &m.TargetVolumeAttributesClassName)
	}
	return set(names...)
}

// byVolume answers the class that a volume has.
func byVolume(v *corev1.PersistentVolume) []string { return set(v.Spec.VolumeAttributesClassName) }

func set(names ...*string) (out []string) {
	for _, n := range names {
		if n != nil && *n != "" && !slices.Contains(out, *n) {
			out = append(out, *n)
		}
	}
	return out
}

// decide answers the finalizers of a class as they are to be, nil if they are so.
func decide(c *storagev1.VolumeAttributesClass, used bool) []string {
	has := slices.Contains(c.Finalizers, finalizer)
	switch {
	case c.DeletionTimestamp == nil && !has:
		return append(slices.Clone(c.Finalizers), finalizer)
	case c.DeletionTimestamp != nil && has && !used:
		return slices.DeleteFunc(append([]string{}, c.Finalizers...), func(f string) bool { return f == finalizer })
	}
	return nil
}
