package selinuxwarning

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/sextant-k8s/sextant/pkg/controllermanager/runtime"
)

// Snapshot is a pod and the volumes behind its own that can be mounted with a label, by the names that it gives them.
type Snapshot struct {
	Pod     *corev1.Pod // nil = it is gone
	Volumes map[string]string
}

// Use is how a pod uses a volume.
type Use struct {
	Volume string
	Label  string // user:role:type:level as the pod has them, "" if it has none or wants files relabelled
	Policy corev1.PodSELinuxChangePolicy
}

// Plan is a pod's uses, and those of its volumes that cannot be mounted because its containers have different labels.
type Plan struct {
	Uses  []Use
	Mixed []string
}

// decide reads how a pod uses volumes. One that has ended uses none.
func decide(s Snapshot) (p Plan) {
	if s.Pod == nil || runtime.Finished(s.Pod) {
		return p
	}
	policy := corev1.SELinuxChangePolicyMountOption
	if c := s.Pod.Spec.SecurityContext; c != nil && c.SELinuxChangePolicy != nil {
		policy = *c.SELinuxChangePolicy
	}
	for _, v := range s.Pod.Spec.Volumes {
		volume, ok := s.Volumes[v.Name]
		if !ok {
			continue
		}
		labels, mounted := labelsOf(s.Pod, v.Name)
		use := Use{Volume: volume, Policy: policy}
		switch {
		case !mounted:
			continue
		case policy == corev1.SELinuxChangePolicyRecursive:
		case len(labels) > 1:
			p.Mixed = append(p.Mixed, v.Name)
			continue
		case len(labels) == 0 || labels[0] == "":
			use.Policy = corev1.SELinuxChangePolicyRecursive // there is nothing to mount it with
		default:
			use.Label = labels[0]
		}
		p.Uses = append(p.Uses, use)
	}
	return p
}

// labelsOf answers the labels of the containers that mount one of a pod's volumes, each once.
func labelsOf(p *corev1.Pod, volume string) (labels []string, mounted bool) {
	add := func(own *corev1.SecurityContext, mounts []corev1.VolumeMount) {
		if !slices.ContainsFunc(mounts, func(m corev1.VolumeMount) bool { return m.Name == volume }) {
			return
		}
		mounted = true
		var opts *corev1.SELinuxOptions
		if p.Spec.SecurityContext != nil {
			opts = p.Spec.SecurityContext.SELinuxOptions
		}
		if own != nil && own.SELinuxOptions != nil {
			opts = own.SELinuxOptions
		}
		if l := label(opts); !slices.Contains(labels, l) {
			labels = append(labels, l)
		}
	}
	for _, c := range p.Spec.InitContainers {
		add(c.SecurityContext, c.VolumeMounts)
	}
	for _, c := range p.Spec.Containers {
		add(c.SecurityContext, c.VolumeMounts)
	}
	for _, c := range p.Spec.EphemeralContainers {
		add(c.SecurityContext, c.VolumeMounts)
	}
	return labels, mounted
}

// label is what options say; what they leave out each node fills in as its distribution does, so it stays empty here.
func label(o *corev1.SELinuxOptions) string {
	if o == nil || *o == (corev1.SELinuxOptions{}) {
		return ""
	}
	return strings.Join([]string{o.User, o.Role, o.Type, o.Level}, ":")
}

// Conflict is two pods of which only one can use a volume at a time on a node, as the first of them is to hear it.
type Conflict struct {
	Property          string // "SELinuxLabel" or "SELinuxChangePolicy"
	Pod, Other        runtime.Key
	Value, OtherValue string
}

// Reason is the event's.
func (c Conflict) Reason() string { return c.Property + "Conflict" }

// Message is the event's. Who is not of the pod's namespace is not named.
func (c Conflict) Message() string {
	const both = ". If both pods land on the same node, only one of them may access the volume."
	if c.Pod.Namespace != c.Other.Namespace {
		return fmt.Sprintf("%s%q conflicts with another pod that uses the same volume as this pod with a different %s%s", c.Property, c.Value, c.Property, both)
	}
	return fmt.Sprintf("%s %q conflicts with pod %s that uses the same volume as this pod with %s %q%s", c.Property, c.Value, c.Other.Name, c.Property, c.OtherValue, both)
}

// conflicts tells what stands between two pods that use one volume, as the first of them is to hear it.
func conflicts(pod runtime.Key, a Use, other runtime.Key, b Use) (out []Conflict) {
	if a.Policy != b.Policy {
		out = append(out, Conflict{"SELinuxChangePolicy", pod, other, string(a.Policy), string(b.Policy)})
	}
	if differ(a.Label, b.Label) {
		out = append(out, Conflict{"SELinuxLabel", pod, other, a.Label, b.Label})
	}
	return out
}

// differ tells whether two labels cannot be the same on any node. User, role and type that are left out may turn out to be
// the other's; a level that is left out never is.
func differ(a, b string) bool {
	if a == "" || b == "" {
		return false
	}
	x, y := strings.SplitN(a, ":", 4), strings.SplitN(b, ":", 4)
	for i := range 3 {
		if x[i] != y[i] && x[i] != "" && y[i] != "" {
			return true
		}
	}
	return x[3] != y[3]
}
