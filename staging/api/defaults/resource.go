package defaults

import (
	"time"

	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ResourceClaim fills in how many devices are asked for.
func ResourceClaim(c *resourcev1.ResourceClaim) { deviceClaim(&c.Spec.Devices) }

// ResourceClaimTemplate fills in how many devices are asked for.
func ResourceClaimTemplate(t *resourcev1.ResourceClaimTemplate) { deviceClaim(&t.Spec.Spec.Devices) }

func deviceClaim(c *resourcev1.DeviceClaim) {
	for i := range c.Requests {
		r := &c.Requests[i]
		if e := r.Exactly; e != nil {
			fill(&e.AllocationMode, resourcev1.DeviceAllocationModeExactCount)
			if e.AllocationMode == resourcev1.DeviceAllocationModeExactCount {
				fill(&e.Count, 1)
			}
			deviceTolerations(e.Tolerations)
		}
		for j := range r.FirstAvailable {
			s := &r.FirstAvailable[j]
			fill(&s.AllocationMode, resourcev1.DeviceAllocationModeExactCount)
			if s.AllocationMode == resourcev1.DeviceAllocationModeExactCount {
				fill(&s.Count, 1)
			}
			deviceTolerations(s.Tolerations)
		}
	}
}

func deviceTolerations(list []resourcev1.DeviceToleration) {
	for i := range list {
		fill(&list[i].Operator, resourcev1.DeviceTolerationOpEqual)
	}
}

// DeviceTaintRule fills in when a rule began to taint.
func DeviceTaintRule(r *resourcev1.DeviceTaintRule) {
	if r.Spec.Taint.TimeAdded == nil {
		r.Spec.Taint.TimeAdded = &metav1.Time{Time: time.Now().Truncate(time.Second)}
	}
}
