package validate

import (
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	"k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const (
	// systemClass begins the names that are the cluster's own.
	systemClass = "system-"
	// userPriority is the highest priority that is not the cluster's own.
	userPriority = 1000000000
)

// systemPriorities are the cluster's own classes.
var systemPriorities = map[string]int32{
	"system-node-critical": 2*userPriority + 1000, "system-cluster-critical": 2 * userPriority,
}

// PriorityClass answers what is wrong with a priority class.
func PriorityClass(c *schedulingv1.PriorityClass) field.ErrorList {
	errs := validation.ValidateObjectMeta(&c.ObjectMeta, false, validation.NameIsDNSSubdomain, metadata)
	if strings.HasPrefix(c.Name, systemClass) {
		if v, ok := systemPriorities[c.Name]; !ok || v != c.Value || c.GlobalDefault {
			errs = append(errs, field.Forbidden(metadata.Child("name"), "priority class names with '"+systemClass+"' prefix are reserved for system use only. error: "+reserved(c.Name, v, ok, c.Value)))
		}
	} else if c.Value > userPriority {
		errs = append(errs, field.Forbidden(field.NewPath("value"), "maximum allowed value of a user defined priority is 1000000000"))
	}
	if p := c.PreemptionPolicy; p != nil {
		errs = append(errs, chosen(field.NewPath("preemptionPolicy"), *p, corev1.PreemptLowerPriority, corev1.PreemptNever)...)
	}
	return errs
}

// reserved says why a class may not have a system class's name.
func reserved(name string, known int32, ok bool, value int32) string {
	switch {
	case !ok:
		return name + " is not a known system priority class"
	case known != value:
		return "value of " + name + " PriorityClass must be " + strconv.Itoa(int(known))
	}
	return "globalDefault of " + name + " PriorityClass must be false"
}

// PriorityClassUpdate answers what is wrong with a priority class in the place of old.
func PriorityClassUpdate(c, old *schedulingv1.PriorityClass) field.ErrorList {
	errs := common(&c.ObjectMeta, &old.ObjectMeta, false)
	errs = append(errs, validation.ValidateObjectMetaUpdate(&c.ObjectMeta, &old.ObjectMeta, metadata)...)
	if c.Value != old.Value {
		errs = append(errs, field.Forbidden(field.NewPath("value"), "may not be changed in an update."))
	}
	return append(errs, validation.ValidateImmutableField(c.PreemptionPolicy, old.PreemptionPolicy, field.NewPath("preemptionPolicy"))...)
}
