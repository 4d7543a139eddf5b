package validate

import (
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	"k8s.io/apimachinery/pkg/api/validation"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// RuntimeClass answers what is wrong with a runtime class.
func RuntimeClass(c *nodev1.RuntimeClass) field.ErrorList {
	errs := validation.ValidateObjectMeta(&c.ObjectMeta, false, validation.NameIsDNSSubdomain, metadata)
	errs = append(errs, wrong(field.NewPath("handler"), c.Handler, utilvalidation.IsDNS1123Label(c.Handler))...)
	if o := c.Overhead; o != nil {
		at := field.NewPath("overhead").Child("limits")
		for _, name := range slices.Sorted(maps.Keys(o.PodFixed)) {
			p := at.Key(string(name))
			errs = append(errs, resourceName(name, p)...)
			errs = append(errs, quantity(name, o.PodFixed[name], p)...)
		}
	}
	if s := c.Scheduling; s != nil {
		at := field.NewPath("scheduling")
		errs = append(errs, metavalidation.ValidateLabels(s.NodeSelector, at.Child("nodeSelector"))...)
		errs = append(errs, uniqueTolerations(s.Tolerations, at.Child("tolerations"))...)
	}
	return errs
}

func uniqueTolerations(list []corev1.Toleration, at *field.Path) field.ErrorList {
	errs := tolerations(list, at)
	for i, t := range list {
		if slices.ContainsFunc(list[:i], func(o corev1.Toleration) bool {
			return o.MatchToleration(&t) && (o.TolerationSeconds == nil) == (t.TolerationSeconds == nil)
		}) {
			errs = append(errs, field.Duplicate(at.Index(i), t))
		}
	}
	return errs
}

// RuntimeClassUpdate answers what is wrong with a runtime class in the place of old.
func RuntimeClassUpdate(c, old *nodev1.RuntimeClass) field.ErrorList {
	errs := append(common(&c.ObjectMeta, &old.ObjectMeta, false), RuntimeClass(c)...)
	return append(errs, validation.ValidateImmutableField(c.Handler, old.Handler, field.NewPath("handler"))...)
}
