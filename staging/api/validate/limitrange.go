package validate

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// LimitRange answers what is wrong with a limit range.
func LimitRange(l *corev1.LimitRange) field.ErrorList {
	errs := validation.ValidateObjectMeta(&l.ObjectMeta, true, validation.NameIsDNSSubdomain, metadata)
	seen := map[corev1.LimitType]bool{}
	for i := range l.Spec.Limits {
		it, at := &l.Spec.Limits[i], field.NewPath("spec", "limits").Index(i)
		if bad := qualified(at.Child("type"), string(it.Type)); len(bad) > 0 {
			errs = append(errs, bad...)
			continue
		}
		if seen[it.Type] {
			errs = append(errs, field.Duplicate(at.Child("type"), it.Type))
		}
		seen[it.Type] = true
		errs = append(errs, limitItem(it, at)...)
	}
	return errs
}

// LimitRangeUpdate answers what is wrong with a limit range in the place of old.
func LimitRangeUpdate(l, old *corev1.LimitRange) field.ErrorList {
	return append(common(&l.ObjectMeta, &old.ObjectMeta, true), LimitRange(l)...)
}

func limitItem(it *corev1.LimitRangeItem, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	names := map[string]bool{}
	part := func(list corev1.ResourceList, name string) {
		for _, r := range sortedNames(list) {
			names[r] = true
			errs = append(errs, limitName(it.Type, r, at.Child(name).Key(r))...)
		}
	}
	part(it.Max, "max")
	part(it.Min, "min")
	if it.Type == corev1.LimitTypePod {
		for name, list := range map[string]corev1.ResourceList{"default": it.Default, "defaultRequest": it.DefaultRequest} {
			if len(list) > 0 {
				errs = append(errs, field.Forbidden(at.Child(name), "may not be specified when `type` is 'Pod'"))
			}
		}
	} else {
		part(it.Default, "default")
		part(it.DefaultRequest, "defaultRequest")
	}
	if it.Type == corev1.LimitTypePersistentVolumeClaim {
		_, low := it.Min[corev1.ResourceStorage]
		_, high := it.Max[corev1.ResourceStorage]
		if !low && !high {
			errs = append(errs, field.Required(at.Child("limits"), "either minimum or maximum storage value is required, but neither was provided"))
		}
	}
	part(it.MaxLimitRequestRatio, "maxLimitRequestRatio")
	for _, r := range slices.Sorted(maps.Keys(names)) {
		errs = append(errs, limitOrder(it, corev1.ResourceName(r), at)...)
	}
	return errs
}

// limitOrder: a minimum is at most the default request, that at most the default, that at most the maximum.
func limitOrder(it *corev1.LimitRangeItem, r corev1.ResourceName, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	low, hasLow := it.Min[r]
	high, hasHigh := it.Max[r]
	limit, hasLimit := it.Default[r]
	request, hasRequest := it.DefaultRequest[r]
	ratio, hasRatio := it.MaxLimitRequestRatio[r]
	refuse := func(name string, value resource.Quantity, why string, args ...any) {
		errs = append(errs, field.Invalid(at.Child(name).Key(string(r)), value.String(), fmt.Sprintf(why, args...)))
	}
	if hasLow && hasHigh && low.Cmp(high) > 0 {
		refuse("min", low, "min value %s is greater than max value %s", low.String(), high.String())
	}
	if hasRequest && hasLow && low.Cmp(request) > 0 {
		refuse("defaultRequest", request, "min value %s is greater than default request value %s", low.String(), request.String())
	}
	if hasRequest && hasHigh && request.Cmp(high) > 0 {
		refuse("defaultRequest", request, "default request value %s is greater than max value %s", request.String(), high.String())
	}
	if hasRequest && hasLimit && request.Cmp(limit) > 0 {
		refuse("defaultRequest", request, "default request value %s is greater than default limit value %s", request.String(), limit.String())
	}
	if hasLimit && hasLow && low.Cmp(limit) > 0 {
		// Upstream names the minimum's value here, not that of the default.
		refuse("default", low, "min value %s is greater than default value %s", low.String(), limit.String())
	}
	if hasLimit && hasHigh && limit.Cmp(high) > 0 {
		refuse("default", high, "default value %s is greater than max value %s", limit.String(), high.String())
	}
	if hasRatio && ratio.Cmp(resource.MustParse("1")) < 0 {
		refuse("maxLimitRequestRatio", ratio, "ratio %s is less than 1", ratio.String())
	}
	if hasRatio && hasLow && hasHigh && low.Sign() > 0 {
		widest := float64(high.MilliValue()) / float64(low.MilliValue())
		if float64(ratio.MilliValue())/1000 > widest {
			refuse("maxLimitRequestRatio", ratio, "ratio %s is greater than max/min = %f", ratio.String(), widest)
		}
	}
	return errs
}

// limitName checks that a limit is on what pods or containers ask for; what claims ask for is not looked at.
func limitName(kind corev1.LimitType, r string, at *field.Path) field.ErrorList {
	errs := qualified(at, r)
	if len(errs) > 0 || strings.Contains(r, "/") {
		return errs
	}
	known := computes(r)
	if !known && r != string(corev1.ResourceStorage) && !quotas[r] {
		errs = append(errs, field.Invalid(at, r, "must be a standard resource type or fully qualified"))
	}
	if !known && (kind == corev1.LimitTypePod || kind == corev1.LimitTypeContainer) {
		errs = append(errs, field.Invalid(at, r, "must be a standard resource for containers"))
	}
	return errs
}

// computes tells what a container asks for.
func computes(r string) bool {
	switch corev1.ResourceName(r) {
	case corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage:
		return true
	}
	return strings.HasPrefix(r, corev1.ResourceHugePagesPrefix)
}

func sortedNames(list corev1.ResourceList) []string {
	var names []string
	for r := range list {
		names = append(names, string(r))
	}
	slices.Sort(names)
	return names
}
