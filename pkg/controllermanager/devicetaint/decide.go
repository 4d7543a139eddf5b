package devicetaint

import (
	"math"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
)

// Snapshot is what a decision about a pod is made on.
type Snapshot struct {
	Pod    *corev1.Pod
	Claims []*resourcev1.ResourceClaim // those that it names
	Slices []*resourcev1.ResourceSlice // those of the pools that the claims have devices of
	Rules  []*resourcev1.DeviceTaintRule
}

// decide answers when a pod has to leave for the taints of its devices; false if it may stay.
func decide(s Snapshot) (at time.Time, leaves bool) {
	for _, c := range s.Claims {
		if c.Status.Allocation == nil || !reserved(c, s.Pod) {
			continue
		}
		for _, r := range c.Status.Allocation.Devices.Results {
			for _, t := range append(taints(s.Slices, r), ruled(s.Rules, r)...) {
				when, out := until(t, r.Tolerations)
				if out && (!leaves || when.Before(at)) {
					at, leaves = when, true
				}
			}
		}
	}
	return at, leaves
}

func reserved(c *resourcev1.ResourceClaim, p *corev1.Pod) bool {
	for _, r := range c.Status.ReservedFor {
		if r.UID == p.UID {
			return true
		}
	}
	return false
}

// taints answers the taints of a device, as the newest generation of its pool tells.
func taints(slices []*resourcev1.ResourceSlice, r resourcev1.DeviceRequestAllocationResult) (out []resourcev1.DeviceTaint) {
	newest := int64(-1)
	for _, x := range slices {
		if x.Spec.Driver != r.Driver || x.Spec.Pool.Name != r.Pool || x.Spec.Pool.Generation < newest {
			continue
		}
		if x.Spec.Pool.Generation > newest {
			newest, out = x.Spec.Pool.Generation, nil
		}
		for _, d := range x.Spec.Devices {
			if d.Name == r.Device {
				out = append(out, d.Taints...)
			}
		}
	}
	return out
}

// ruled answers the taints that rules give a device.
func ruled(rules []*resourcev1.DeviceTaintRule, r resourcev1.DeviceRequestAllocationResult) (out []resourcev1.DeviceTaint) {
	for _, x := range rules {
		if about(x, r) {
			out = append(out, x.Spec.Taint)
		}
	}
	return out
}

// about tells whether a rule taints a device. One without a selector taints none, one whose selector is empty all.
func about(x *resourcev1.DeviceTaintRule, r resourcev1.DeviceRequestAllocationResult) bool {
	s := x.Spec.DeviceSelector
	return s != nil && (s.Driver == nil || *s.Driver == r.Driver) && (s.Pool == nil || *s.Pool == r.Pool) && (s.Device == nil || *s.Device == r.Device)
}

// until answers when a taint drives out; false if it never does. Of tolerations that end the shortest counts.
func until(t resourcev1.DeviceTaint, tolerations []resourcev1.DeviceToleration) (time.Time, bool) {
	if t.Effect != resourcev1.DeviceTaintEffectNoExecute {
		return time.Time{}, false
	}
	var since time.Time
	if t.TimeAdded != nil {
		since = t.TimeAdded.Time
	}
	least, tolerated := int64(math.MaxInt64), false
	for _, x := range tolerations {
		if tolerates(x, t) {
			tolerated = true
			if x.TolerationSeconds != nil {
				least = min(least, max(0, *x.TolerationSeconds))
			}
		}
	}
	switch {
	case !tolerated:
		return since, true
	case least == math.MaxInt64:
		return time.Time{}, false
	}
	return since.Add(time.Duration(least) * time.Second), true
}

func tolerates(x resourcev1.DeviceToleration, t resourcev1.DeviceTaint) bool {
	if x.Effect != "" && x.Effect != t.Effect || x.Key != "" && x.Key != t.Key {
		return false
	}
	return x.Operator == resourcev1.DeviceTolerationOpExists || x.Key != "" && x.Value == t.Value
}
