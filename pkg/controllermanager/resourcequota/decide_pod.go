package resourcequota

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
)

// live tells whether a pod still uses what it asked for: it has not ended, and is not overdue in being deleted.
func live(p *corev1.Pod, now time.Time) bool {
	if p.Status.Phase == corev1.PodFailed || p.Status.Phase == corev1.PodSucceeded {
		return false
	}
	if p.DeletionTimestamp == nil || p.DeletionGracePeriodSeconds == nil {
		return true
	}
	return !now.After(p.DeletionTimestamp.Add(time.Duration(*p.DeletionGracePeriodSeconds) * time.Second))
}

// respecified tells whether a pod's specification changed in what quotas look at, which where it runs is not.
func respecified(a, b *corev1.Pod) bool {
	return !equality.Semantic.DeepEqual(a.Spec.ActiveDeadlineSeconds, b.Spec.ActiveDeadlineSeconds) || !equality.Semantic.DeepEqual(a.Spec.Resources, b.Spec.Resources) ||
		!equality.Semantic.DeepEqual(a.Spec.Containers, b.Spec.Containers) || !equality.Semantic.DeepEqual(a.Spec.InitContainers, b.Spec.InitContainers)
}

// need is what a pod asks of one resource: its containers together with sidecars, or the greediest step of its start.
func need(p *corev1.Pod, name corev1.ResourceName, limits bool) resource.Quantity {
	pick := func(r *corev1.ResourceRequirements) resource.Quantity {
		if limits {
			return r.Limits[name]
		}
		return r.Requests[name]
	}
	var total, sidecars, start resource.Quantity
	for i := range p.Spec.Containers {
		total.Add(pick(&p.Spec.Containers[i].Resources))
	}
	for i := range p.Spec.InitContainers {
		c := &p.Spec.InitContainers[i]
		step := pick(&c.Resources)
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			sidecars.Add(step)
			step = sidecars.DeepCopy()
		} else {
			step.Add(sidecars)
		}
		if step.Cmp(start) > 0 {
			start = step
		}
	}
	total.Add(sidecars)
	if start.Cmp(total) > 0 {
		total = start
	}
	if p.Spec.Resources != nil { // what the pod says of itself as a whole counts instead
		if q := pick(p.Spec.Resources); !q.IsZero() {
			total = q
		}
	}
	if over, ok := p.Spec.Overhead[name]; ok && (!limits || !total.IsZero()) {
		total.Add(over)
	}
	return total
}

// scoped tells whether a quota is about a pod.
func (s Snapshot) scoped(p *corev1.Pod) bool {
	for _, scope := range s.Quota.Spec.Scopes {
		if !matches(p, corev1.ScopedResourceSelectorRequirement{ScopeName: scope, Operator: corev1.ScopeSelectorOpExists}) {
			return false
		}
	}
	if s.Quota.Spec.ScopeSelector == nil {
		return true
	}
	for _, r := range s.Quota.Spec.ScopeSelector.MatchExpressions {
		if !matches(p, r) {
			return false
		}
	}
	return true
}

func matches(p *corev1.Pod, r corev1.ScopedResourceSelectorRequirement) bool {
	switch r.ScopeName {
	case corev1.ResourceQuotaScopeTerminating:
		return p.Spec.ActiveDeadlineSeconds != nil
	case corev1.ResourceQuotaScopeNotTerminating:
		return p.Spec.ActiveDeadlineSeconds == nil
	case corev1.ResourceQuotaScopeBestEffort:
		return bestEffort(p)
	case corev1.ResourceQuotaScopeNotBestEffort:
		return !bestEffort(p)
	case corev1.ResourceQuotaScopeCrossNamespacePodAffinity:
		return affine(p)
	case corev1.ResourceQuotaScopePriorityClass:
		class := p.Spec.PriorityClassName
		switch r.Operator {
		case corev1.ScopeSelectorOpIn:
			return slices.Contains(r.Values, class)
		case corev1.ScopeSelectorOpNotIn:
			return !slices.Contains(r.Values, class)
		case corev1.ScopeSelectorOpDoesNotExist:
			return class == ""
		}
		return class != ""
	}
	return false
}

// bestEffort tells whether a pod asks for no processor and no memory.
func bestEffort(p *corev1.Pod) bool {
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
		for _, limits := range []bool{false, true} {
			bare := *p
			bare.Spec.Overhead = nil // what the runtime takes is not asked for by the pod
			if q := need(&bare, name, limits); !q.IsZero() {
				return false
			}
		}
	}
	return true
}

// affine tells whether a pod's affinity looks into other namespaces.
func affine(p *corev1.Pod) bool {
	a := p.Spec.Affinity
	if a == nil {
		return false
	}
	var terms []corev1.PodAffinityTerm
	if x := a.PodAffinity; x != nil {
		terms = append(terms, x.RequiredDuringSchedulingIgnoredDuringExecution...)
		for _, w := range x.PreferredDuringSchedulingIgnoredDuringExecution {
			terms = append(terms, w.PodAffinityTerm)
		}
	}
	if x := a.PodAntiAffinity; x != nil {
		terms = append(terms, x.RequiredDuringSchedulingIgnoredDuringExecution...)
		for _, w := range x.PreferredDuringSchedulingIgnoredDuringExecution {
			terms = append(terms, w.PodAffinityTerm)
		}
	}
	return slices.ContainsFunc(terms, func(t corev1.PodAffinityTerm) bool { return len(t.Namespaces) > 0 || t.NamespaceSelector != nil })
}
