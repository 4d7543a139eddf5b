package validate

import (
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sextant-k8s/sextant/staging/api/defaults"
)

// podResources checks a pod's own requests and limits, by themselves and beside those of its containers.
func podResources(s *corev1.PodSpec, at *field.Path) field.ErrorList {
	r := s.Resources
	if r == nil {
		return nil
	}
	var errs field.ErrorList
	if r.Claims != nil {
		errs = append(errs, field.Forbidden(at.Child("claims"), "claims may not be set for Resources at pod-level"))
	}
	known := true
	for _, l := range []struct {
		list corev1.ResourceList
		name string
	}{{r.Limits, "limits"}, {r.Requests, "requests"}} {
		for _, n := range slices.Sorted(maps.Keys(l.list)) {
			if p := at.Child(l.name).Key(string(n)); len(resourceName(n, p)) == 0 && n != corev1.ResourceCPU && n != corev1.ResourceMemory && !hugePages(n) {
				known = false
				errs = append(errs, field.NotSupported(p, n, []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceHugePagesPrefix, corev1.ResourceMemory}))
			}
		}
	}
	if known {
		errs = append(errs, resources(&corev1.ResourceRequirements{Limits: r.Limits, Requests: r.Requests}, at)...)
	}
	together := defaults.Together(s)
	for _, n := range slices.Sorted(maps.Keys(r.Requests)) {
		if q, sum := r.Requests[n], together[n]; q.Cmp(sum) < 0 {
			errs = append(errs, field.Invalid(at.Child("requests").Key(string(n)), q.String(), "must be greater than or equal to aggregate container requests of "+sum.String()))
		}
	}
	for i, c := range s.Containers {
		for _, n := range slices.Sorted(maps.Keys(c.Resources.Limits)) {
			if most, ok := r.Limits[n]; ok {
				if q := c.Resources.Limits[n]; q.Cmp(most) > 0 {
					errs = append(errs, field.Invalid(at.Child("containers").Index(i).Key(string(n)).Child("limits"), q.String(), "must be less than or equal to pod limits of "+most.String()))
				}
			}
		}
	}
	return errs
}

// PodResize answers what is wrong with a pod which, or whose containers, were given other resources.
func PodResize(p, old *corev1.Pod) field.ErrorList {
	errs := common(&p.ObjectMeta, &old.ObjectMeta, true)
	errs = append(errs, validation.ValidateObjectMetaUpdate(&p.ObjectMeta, &old.ObjectMeta, metadata)...)
	errs = append(errs, pod(p)...)
	at := field.NewPath("spec")
	if old.Spec.OS != nil && old.Spec.OS.Name == corev1.Windows {
		return append(errs, field.Forbidden(at, "windows pods cannot be resized"))
	}
	keep := func(now, was []corev1.Container, name string) {
		at, others := at.Child(name), false
		if len(now) != len(was) {
			errs = append(errs, field.Forbidden(at, name+" may not be added or removed on resize"))
			return
		}
		for i := range now {
			if now[i].Name != was[i].Name {
				errs = append(errs, field.Forbidden(at.Index(i).Child("name"), name+" may not be renamed or reordered on resize"))
				continue
			}
			others = others || !equality.Semantic.DeepEqual(fixedOf(now[i].Resources), fixedOf(was[i].Resources))
			p := at.Index(i).Child("resources")
			kept := func(now, was corev1.ResourceList, name string) {
				for _, n := range slices.Sorted(maps.Keys(was)) {
					if _, ok := now[n]; !ok && (n == corev1.ResourceCPU || n == corev1.ResourceMemory) {
						errs = append(errs, field.Forbidden(p.Child(name), "resource "+name+" cannot be removed"))
						return
					}
				}
			}
			kept(now[i].Resources.Limits, was[i].Resources.Limits, "limits")
			kept(now[i].Resources.Requests, was[i].Resources.Requests, "requests")
		}
		if others {
			errs = append(errs, field.Forbidden(field.NewPath("spec"), "only cpu and memory resources are mutable"))
		}
	}
	keep(p.Spec.Containers, old.Spec.Containers, "containers")
	keep(p.Spec.InitContainers, old.Spec.InitContainers, "initContainers")
	errs = append(errs, ownSizeUpdate(p.Spec.Resources, old.Spec.Resources, at)...)
	if was := class(old); class(p) != was {
		errs = append(errs, field.Invalid(at, was, "Pod QOS Class may not change as a result of resizing"))
	}
	return errs
}

// ownSizeUpdate checks the change of a pod's own resources: cpu and memory may be given and changed, not taken away.
func ownSizeUpdate(now, was *corev1.ResourceRequirements, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if was == nil {
		was = &corev1.ResourceRequirements{}
	} else if now == nil {
		return field.ErrorList{field.Forbidden(at.Child("resources"), "pod-level resources cannot be removed")}
	}
	if now == nil {
		return nil
	}
	kept := func(now, was corev1.ResourceList, name string) {
		for n := range was {
			if _, ok := now[n]; !ok {
				errs = append(errs, field.Forbidden(at.Child("resources", name), "pod-level resource "+name+" cannot be removed"))
				return
			}
		}
	}
	kept(now.Requests, was.Requests, "requests")
	kept(now.Limits, was.Limits, "limits")
	if !equality.Semantic.DeepEqual(fixedOf(*now), fixedOf(*was)) {
		errs = append(errs, field.Forbidden(at, "only cpu and memory resources are mutable at pod-level"))
	}
	return errs
}

// fixedOf is what of resources no resize can change.
func fixedOf(r corev1.ResourceRequirements) corev1.ResourceRequirements {
	fixed := func(l corev1.ResourceList) corev1.ResourceList {
		l = maps.Clone(l)
		delete(l, corev1.ResourceCPU)
		delete(l, corev1.ResourceMemory)
		return l
	}
	return corev1.ResourceRequirements{Limits: fixed(r.Limits), Requests: fixed(r.Requests), Claims: r.Claims}
}

// class is the quality of service that a pod's cpu and memory put it in.
func class(p *corev1.Pod) corev1.PodQOSClass {
	exact, some := true, false
	sizes := []corev1.ResourceRequirements{}
	if r := p.Spec.Resources; r != nil && len(r.Requests)+len(r.Limits) > 0 {
		sizes = append(sizes, *r)
	} else {
		for _, c := range slices.Concat(p.Spec.Containers, p.Spec.InitContainers) {
			sizes = append(sizes, c.Resources)
		}
	}
	for _, c := range sizes {
		for _, n := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
			r, l := c.Requests[n], c.Limits[n]
			some = some || !r.IsZero() || !l.IsZero()
			exact = exact && !l.IsZero() && (r.IsZero() || r.Cmp(l) == 0)
		}
	}
	switch {
	case !some:
		return corev1.PodQOSBestEffort
	case exact:
		return corev1.PodQOSGuaranteed
	}
	return corev1.PodQOSBurstable
}
