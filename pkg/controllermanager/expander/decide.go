package expander

import (
	corev1 "k8s.io/api/core/v1"
)

// decide tells whether a claim asks for more than its volume has, so that its driver is waited for.
func decide(c *corev1.PersistentVolumeClaim) bool {
	if c.Status.Phase != corev1.ClaimBound || c.DeletionTimestamp != nil {
		return false
	}
	want, have := c.Spec.Resources.Requests[corev1.ResourceStorage], c.Status.Capacity[corev1.ResourceStorage]
	return want.Cmp(have) > 0
}
