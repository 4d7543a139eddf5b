package validate

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

var containerResources = sets.New(corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage)

func hugePages(n corev1.ResourceName) bool {
	return strings.HasPrefix(string(n), corev1.ResourceHugePagesPrefix)
}

// native tells the names that belong to Kubernetes itself from those of devices.
func native(n corev1.ResourceName) bool {
	return !strings.Contains(string(n), "/") || strings.Contains(string(n), corev1.ResourceDefaultNamespacePrefix)
}

func resourceName(n corev1.ResourceName, at *field.Path) field.ErrorList {
	if errs := invalid(at, n, utilvalidation.IsQualifiedName(string(n))); len(errs) > 0 {
		return errs
	}
	if !strings.Contains(string(n), "/") && !containerResources.Has(n) && !hugePages(n) {
		return field.ErrorList{
			field.Invalid(at, n, "must be a standard resource type or fully qualified"),
			field.Invalid(at, n, "must be a standard resource for containers"),
		}
	}
	return nil
}

func quantity(n corev1.ResourceName, q resource.Quantity, at *field.Path) field.ErrorList {
	errs := negative(q, at)
	if !native(n) && q.MilliValue()%1000 != 0 {
		errs = append(errs, field.Invalid(at, q.String(), "must be an integer"))
	}
	return errs
}

func negative(q resource.Quantity, at *field.Path) field.ErrorList {
	if q.Sign() < 0 {
		return field.ErrorList{field.Invalid(at, q.String(), validation.IsNegativeErrorMsg)}
	}
	return nil
}

// resources checks the requests and limits of a container.
func resources(r *corev1.ResourceRequirements, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	lim, req := at.Child("limits"), at.Child("requests")
	basic, huge := false, false
	note := func(n corev1.ResourceName) {
		basic = basic || n == corev1.ResourceCPU || n == corev1.ResourceMemory
		huge = huge || hugePages(n)
	}
	for _, n := range slices.Sorted(maps.Keys(r.Limits)) {
		errs = append(errs, resourceName(n, lim.Key(string(n)))...)
		errs = append(errs, quantity(n, r.Limits[n], lim.Key(string(n)))...)
		note(n)
	}
	for _, n := range slices.Sorted(maps.Keys(r.Requests)) {
		q, p := r.Requests[n], req.Key(string(n))
		errs = append(errs, resourceName(n, p)...)
		errs = append(errs, quantity(n, q, p)...)
		overcommit := native(n) && !hugePages(n)
		if l, ok := r.Limits[n]; ok {
			if !overcommit && q.Cmp(l) != 0 {
				errs = append(errs, field.Invalid(req, q.String(), fmt.Sprintf("must be equal to %s limit of %s", n, l.String())))
			} else if q.Cmp(l) > 0 {
				errs = append(errs, field.Invalid(req, q.String(), fmt.Sprintf("must be less than or equal to %s limit of %s", n, l.String())))
			}
		} else if !overcommit {
			errs = append(errs, field.Required(lim, "Limit must be set for non overcommitable resources"))
		}
		note(n)
	}
	if huge && !basic {
		errs = append(errs, field.Forbidden(at, "HugePages require cpu or memory"))
	}
	return errs
}

// resizePolicy checks how a container takes other resources; never: it is not started again whatever happens.
func resizePolicy(list []corev1.ContainerResizePolicy, never bool, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	seen := sets.New[corev1.ResourceName]()
	for i, p := range list {
		if seen.Has(p.ResourceName) {
			errs = append(errs, field.Duplicate(at.Index(i), p.ResourceName))
		}
		seen.Insert(p.ResourceName)
		errs = add(errs, oneOf(at, p.ResourceName, corev1.ResourceCPU, corev1.ResourceMemory))
		errs = add(errs, oneOf(at, p.RestartPolicy, corev1.NotRequired, corev1.RestartContainer))
		if never && p.RestartPolicy == corev1.RestartContainer {
			errs = append(errs, field.Invalid(at, p.RestartPolicy, "must be 'NotRequired' when `restartPolicy` is 'Never'"))
		}
	}
	return errs
}
