package protection

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
)

const (
	claimFinalizer  = "kubernetes.io/pvc-protection"
	volumeFinalizer = "kubernetes.io/pv-protection"
)

// claimsOf answers the claims that a pod uses, those made for it alone too.
func claimsOf(p *corev1.Pod) []string {
	var out []string
	for _, v := range p.Spec.Volumes {
		switch {
		case v.PersistentVolumeClaim != nil:
			out = append(out, v.PersistentVolumeClaim.ClaimName)
		case v.Ephemeral != nil:
			out = append(out, p.Name+"-"+v.Name)
		}
	}
	return out
}

// decideClaim answers the finalizers of a claim as they are to be, nil if they are so.
func decideClaim(c *corev1.PersistentVolumeClaim, pods []*corev1.Pod) []string {
	if c.DeletionTimestamp == nil {
		return with(c.Finalizers, claimFinalizer)
	}
	// A pod without a node does not use it: no kubelet starts one with a claim that is being deleted.
	used := slices.ContainsFunc(pods, func(p *corev1.Pod) bool {
		return p.Spec.NodeName != "" && slices.Contains(claimsOf(p), c.Name)
	})
	if used {
		return nil
	}
	return without(c.Finalizers, claimFinalizer)
}

// decideVolume answers the finalizers of a volume as they are to be, nil if they are so.
func decideVolume(v *corev1.PersistentVolume) []string {
	switch {
	case v.DeletionTimestamp == nil:
		return with(v.Finalizers, volumeFinalizer)
	case v.Status.Phase == corev1.VolumeBound:
		return nil
	}
	return without(v.Finalizers, volumeFinalizer)
}

func with(list []string, f string) []string {
	if slices.Contains(list, f) {
		return nil
	}
	return append(slices.Clone(list), f)
}

func without(list []string, f string) []string {
	if !slices.Contains(list, f) {
		return nil
	}
	return slices.DeleteFunc(append([]string{}, list...), func(x string) bool { return x == f })
}
