package plugins

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// inScope tells whether an object is of those that a scope is about. Kinds that know no such scope never are.
func inScope(obj runtime.Object, s corev1.ScopedResourceSelectorRequirement) (bool, error) {
	switch o := obj.(type) {
	case *corev1.Pod:
		switch s.ScopeName {
		case corev1.ResourceQuotaScopeTerminating:
			return terminating(o), nil
		case corev1.ResourceQuotaScopeNotTerminating:
			return !terminating(o), nil
		case corev1.ResourceQuotaScopeBestEffort:
			return bestEffort(o), nil
		case corev1.ResourceQuotaScopeNotBestEffort:
			return !bestEffort(o), nil
		case corev1.ResourceQuotaScopePriorityClass:
			return selected(s, o.Spec.PriorityClassName)
		case corev1.ResourceQuotaScopeCrossNamespacePodAffinity:
			return crossesNamespaces(o), nil
		}
	case *corev1.PersistentVolumeClaim:
		if s.ScopeName == corev1.ResourceQuotaScopeVolumeAttributesClass {
			return anyClass(o, s)
		}
	}
	return false, nil
}

// selected holds a name, "" for none, against a scope's operator.
func selected(s corev1.ScopedResourceSelectorRequirement, name string) (bool, error) {
	switch s.Operator {
	case corev1.ScopeSelectorOpExists:
		return name != "", nil
	case corev1.ScopeSelectorOpDoesNotExist:
		return name == "", nil
	case corev1.ScopeSelectorOpIn:
		return name != "" && slices.Contains(s.Values, name), nil
	case corev1.ScopeSelectorOpNotIn:
		return name == "" || !slices.Contains(s.Values, name), nil
	}
	return false, fmt.Errorf("%q is not a valid scope selector operator", s.Operator)
}

// terminating pods end by themselves after a while.
func terminating(p *corev1.Pod) bool {
	return p.Spec.ActiveDeadlineSeconds != nil && *p.Spec.ActiveDeadlineSeconds >= 0
}

// bestEffort pods ask for no cpu and no memory.
func bestEffort(p *corev1.Pod) bool {
	asks := func(r corev1.ResourceRequirements) bool {
		return r.Requests.Cpu().Sign() > 0 || r.Requests.Memory().Sign() > 0 || r.Limits.Cpu().Sign() > 0 || r.Limits.Memory().Sign() > 0
	}
	return (p.Spec.Resources == nil || !asks(*p.Spec.Resources)) &&
		!slices.ContainsFunc(slices.Concat(p.Spec.Containers, p.Spec.InitContainers), func(c corev1.Container) bool { return asks(c.Resources) })
}

// crossesNamespaces tells whether a pod's affinity looks into namespaces that are not its own.
func crossesNamespaces(p *corev1.Pod) bool {
	a := p.Spec.Affinity
	if a == nil {
		return false
	}
	var terms []corev1.PodAffinityTerm
	var weighted []corev1.WeightedPodAffinityTerm
	if f := a.PodAffinity; f != nil {
		terms, weighted = append(terms, f.RequiredDuringSchedulingIgnoredDuringExecution...), append(weighted, f.PreferredDuringSchedulingIgnoredDuringExecution...)
	}
	if f := a.PodAntiAffinity; f != nil {
		terms, weighted = append(terms, f.RequiredDuringSchedulingIgnoredDuringExecution...), append(weighted, f.PreferredDuringSchedulingIgnoredDuringExecution...)
	}
	for _, w := range weighted {
		terms = append(terms, w.PodAffinityTerm)
	}
	return slices.ContainsFunc(terms, func(t corev1.PodAffinityTerm) bool { return len(t.Namespaces) > 0 || t.NamespaceSelector != nil })
}

// anyClass holds every attributes class that a claim has or is on its way to against a scope.
func anyClass(c *corev1.PersistentVolumeClaim, s corev1.ScopedResourceSelectorRequirement) (bool, error) {
	var names []string
	if n := c.Spec.VolumeAttributesClassName; n != nil {
		names = append(names, *n)
	}
	if n := c.Status.CurrentVolumeAttributesClassName; n != nil {
		names = append(names, *n)
	}
	if m := c.Status.ModifyVolumeStatus; m != nil {
		names = append(names, m.TargetVolumeAttributesClassName)
	}
	if len(names) == 0 {
		names = []string{""}
	}
	for _, n := range names {
		if in, err := selected(s, n); in || err != nil {
			return in, err
		}
	}
	return false, nil
}
