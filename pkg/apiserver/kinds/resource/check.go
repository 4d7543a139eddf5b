package resource

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/validation"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/cel/environment"
	dracel "k8s.io/dynamic-resource-allocation/cel"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

const (
	driverNameLength = 63
	poolNameLength   = 253
	identifierLength = 32 // of an attribute or capacity within its domain
)

func meta(o kind.Object, old kind.Object, namespaced bool) field.ErrorList {
	at := field.NewPath("metadata")
	errs := validation.ValidateObjectMetaAccessor(o, namespaced, validation.NameIsDNSSubdomain, at)
	if old != nil {
		errs = append(errs, validation.ValidateObjectMetaAccessorUpdate(o, old, at)...)
	}
	return errs
}

// each is one error for each message about a value.
func each(at *field.Path, value any, msgs []string) field.ErrorList {
	var errs field.ErrorList
	for _, m := range msgs {
		errs = append(errs, field.Invalid(at, value, m))
	}
	return errs
}

func checkClass(_ *kind.Op, c, old *resourcev1.DeviceClass) field.ErrorList {
	var was kind.Object
	stored := map[string]bool{}
	if old != nil {
		was = old
		for _, s := range old.Spec.Selectors {
			if s.CEL != nil {
				stored[s.CEL.Expression] = true
			}
		}
	}
	errs := meta(c, was, false)
	return append(errs, checkSelectors(c.Spec.Selectors, stored, field.NewPath("spec", "selectors"))...)
}

// checkSelectors compiles the expressions that are not stored already: those were good when they were.
func checkSelectors(list []resourcev1.DeviceSelector, stored map[string]bool, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, s := range list {
		p := at.Index(i).Child("cel")
		if s.CEL == nil {
			errs = append(errs, field.Required(p, ""))
			continue
		}
		p = p.Child("expression")
		if n := len(s.CEL.Expression); n > resourcev1.CELSelectorExpressionMaxLength {
			errs = append(errs, field.TooLong(p, "", resourcev1.CELSelectorExpressionMaxLength))
			continue
		}
		env := environment.NewExpressions
		if stored[s.CEL.Expression] {
			env = environment.StoredExpressions
		}
		result := dracel.GetCompiler(dracel.Features{EnableConsumableCapacity: true}).CompileCELExpression(s.CEL.Expression, dracel.Options{EnvType: &env})
		if result.Error != nil {
			errs = append(errs, field.Invalid(p, s.CEL.Expression, result.Error.Error()))
		} else if result.MaxCost > resourcev1.CELSelectorExpressionMaxCost {
			errs = append(errs, field.Forbidden(p, "too complex, exceeds cost limit"))
		}
	}
	return errs
}

func checkClaim(_ *kind.Op, c, old *resourcev1.ResourceClaim) field.ErrorList {
	if old == nil {
		return append(meta(c, nil, true), checkDevices(&c.Spec.Devices, field.NewPath("spec", "devices"))...)
	}
	return append(meta(c, old, true), validation.ValidateImmutableField(c.Spec, old.Spec, field.NewPath("spec"))...)
}

func checkTemplate(_ *kind.Op, t, old *resourcev1.ResourceClaimTemplate) field.ErrorList {
	if old == nil {
		return append(meta(t, nil, true), checkDevices(&t.Spec.Spec.Devices, field.NewPath("spec", "spec", "devices"))...)
	}
	return append(meta(t, old, true), validation.ValidateImmutableField(t.Spec, old.Spec, field.NewPath("spec"))...)
}

// checkDevices checks what devices are asked for, and what holds between them.
func checkDevices(d *resourcev1.DeviceClaim, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	names := map[string]bool{}
	most := func(n, limit int, p *field.Path) {
		if n > limit {
			errs = append(errs, field.TooMany(p, n, limit))
		}
	}
	most(len(d.Requests), resourcev1.DeviceRequestsMaxSize, at.Child("requests"))
	for i := range d.Requests {
		r, p := &d.Requests[i], at.Child("requests").Index(i)
		errs = append(errs, each(p.Child("name"), r.Name, utilvalidation.IsDNS1123Label(r.Name))...)
		if names[r.Name] {
			errs = append(errs, field.Duplicate(p, r.Name))
		}
		names[r.Name] = true
		switch {
		case r.Exactly == nil && len(r.FirstAvailable) == 0:
			errs = append(errs, field.Required(p, "exactly one of `exactly` or `firstAvailable` is required"))
		case r.Exactly != nil && len(r.FirstAvailable) > 0:
			errs = append(errs, field.Invalid(p, nil, "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set"))
		case r.Exactly != nil:
			e := r.Exactly
			errs = append(errs, checkRequest(e.DeviceClassName, e.Selectors, e.AllocationMode, e.Count, p.Child("exactly"))...)
		}
		most(len(r.FirstAvailable), resourcev1.FirstAvailableDeviceRequestMaxSize, p.Child("firstAvailable"))
		for j := range r.FirstAvailable {
			s, q := &r.FirstAvailable[j], p.Child("firstAvailable").Index(j)
			errs = append(errs, each(q.Child("name"), s.Name, utilvalidation.IsDNS1123Label(s.Name))...)
			if names[r.Name+"/"+s.Name] {
				errs = append(errs, field.Duplicate(q, s.Name))
			}
			names[r.Name+"/"+s.Name] = true
			errs = append(errs, checkRequest(s.DeviceClassName, s.Selectors, s.AllocationMode, s.Count, q)...)
		}
	}
	most(len(d.Constraints), resourcev1.DeviceConstraintsMaxSize, at.Child("constraints"))
	for i := range d.Constraints {
		c, p := &d.Constraints[i], at.Child("constraints").Index(i)
		errs = append(errs, checkRequestNames(c.Requests, names, p.Child("requests"))...)
		switch {
		case c.MatchAttribute != nil:
			errs = append(errs, checkAttributeName(string(*c.MatchAttribute), p.Child("matchAttribute"))...)
		case c.DistinctAttribute != nil:
			errs = append(errs, checkAttributeName(string(*c.DistinctAttribute), p.Child("distinctAttribute"))...)
		default:
			errs = append(errs, field.Required(p, `exactly one of "matchAttribute" or "distinctAttribute" is required, but multiple fields are set`))
		}
	}
	most(len(d.Config), resourcev1.DeviceConfigMaxSize, at.Child("config"))
	for i := range d.Config {
		c, p := &d.Config[i], at.Child("config").Index(i)
		errs = append(errs, checkRequestNames(c.Requests, names, p.Child("requests"))...)
		if c.Opaque == nil {
			errs = append(errs, field.Required(p.Child("opaque"), ""))
			continue
		}
		errs = append(errs, checkDriver(c.Opaque.Driver, p.Child("opaque", "driver"))...)
		if len(c.Opaque.Parameters.Raw) == 0 {
			errs = append(errs, field.Required(p.Child("opaque", "parameters"), ""))
		}
	}
	return errs
}

func checkRequest(class string, selectors []resourcev1.DeviceSelector, mode resourcev1.DeviceAllocationMode, count int64, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if class == "" {
		errs = append(errs, field.Required(at.Child("deviceClassName"), ""))
	} else {
		errs = append(errs, each(at.Child("deviceClassName"), class, utilvalidation.IsDNS1123Subdomain(class))...)
	}
	if len(selectors) > resourcev1.DeviceSelectorsMaxSize {
		errs = append(errs, field.TooMany(at.Child("selectors"), len(selectors), resourcev1.DeviceSelectorsMaxSize))
	}
	errs = append(errs, checkSelectors(selectors, nil, at.Child("selectors"))...)
	switch mode {
	case resourcev1.DeviceAllocationModeAll:
		if count != 0 {
			errs = append(errs, field.Invalid(at.Child("count"), count, "must not be specified when allocationMode is 'All'"))
		}
	case resourcev1.DeviceAllocationModeExactCount:
		if count <= 0 {
			errs = append(errs, field.Invalid(at.Child("count"), count, "must be greater than zero"))
		}
	default:
		errs = append(errs, field.NotSupported(at.Child("allocationMode"), mode, []resourcev1.DeviceAllocationMode{resourcev1.DeviceAllocationModeAll, resourcev1.DeviceAllocationModeExactCount}))
	}
	return errs
}

// checkRequestNames checks that names are those of requests, each once.
func checkRequestNames(list []string, known map[string]bool, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, n := range list {
		p := at.Index(i)
		if slices.Contains(list[:i], n) {
			errs = append(errs, field.Duplicate(p, n))
			continue
		}
		for _, part := range strings.SplitN(n, "/", 2) {
			errs = append(errs, each(p, n, utilvalidation.IsDNS1123Label(part))...)
		}
		if !known[n] {
			errs = append(errs, field.Invalid(p, n, "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'"))
		}
	}
	return errs
}

// checkAttributeName checks a name that needs its domain.
func checkAttributeName(name string, at *field.Path) field.ErrorList {
	if name == "" {
		return field.ErrorList{field.Required(at, "name cannot be empty")}
	}
	errs := checkQualified(name, at)
	if !strings.Contains(name, "/") {
		errs = append(errs, field.Invalid(at, name, "must include a domain"))
	}
	return errs
}

func checkQualified(name string, at *field.Path) field.ErrorList {
	domain, id, found := strings.Cut(name, "/")
	if !found {
		return checkIdentifier(name, at)
	}
	var errs field.ErrorList
	if domain == "" {
		errs = append(errs, field.Required(at, "the domain must not be empty"))
	} else {
		errs = append(errs, checkDriver(domain, at)...)
	}
	if id == "" {
		return append(errs, field.Required(at, "the name must not be empty"))
	}
	return append(errs, checkIdentifier(id, at)...)
}

func checkIdentifier(id string, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if len(id) > identifierLength {
		errs = append(errs, field.TooLong(at, "", identifierLength))
	}
	return append(errs, each(at, id, utilvalidation.IsCIdentifier(id))...)
}

func checkDriver(name string, at *field.Path) field.ErrorList {
	if name == "" {
		return field.ErrorList{field.Required(at, "")}
	}
	var errs field.ErrorList
	if len(name) > driverNameLength {
		errs = append(errs, field.TooLong(at, "", driverNameLength))
	}
	return append(errs, each(at, name, utilvalidation.IsDNS1123Subdomain(name))...)
}

// checkSlice: a slice stays with its driver, its pool and its node.
func checkSlice(_ *kind.Op, s, old *resourcev1.ResourceSlice) field.ErrorList {
	var errs field.ErrorList
	at := field.NewPath("spec")
	if old != nil {
		errs = append(errs, meta(s, old, false)...)
		errs = append(errs, validation.ValidateImmutableField(s.Spec.Driver, old.Spec.Driver, at.Child("driver"))...)
		errs = append(errs, validation.ValidateImmutableField(s.Spec.Pool.Name, old.Spec.Pool.Name, at.Child("pool", "name"))...)
		errs = append(errs, validation.ValidateImmutableField(s.Spec.NodeName, old.Spec.NodeName, at.Child("nodeName"))...)
	} else {
		errs = append(errs, meta(s, nil, false)...)
	}
	errs = append(errs, checkDriver(s.Spec.Driver, at.Child("driver"))...)
	errs = append(errs, checkPool(&s.Spec.Pool, at.Child("pool"))...)
	errs = append(errs, checkPlace(&s.Spec, at)...)
	if n := len(s.Spec.Devices); n > resourcev1.ResourceSliceMaxDevices {
		errs = append(errs, field.TooMany(at.Child("devices"), n, resourcev1.ResourceSliceMaxDevices))
	}
	names := map[string]bool{}
	for i := range s.Spec.Devices {
		d, p := &s.Spec.Devices[i], at.Child("devices").Index(i)
		errs = append(errs, each(p.Child("name"), d.Name, utilvalidation.IsDNS1123Label(d.Name))...)
		if names[d.Name] {
			errs = append(errs, field.Duplicate(p, d.Name))
		}
		names[d.Name] = true
		errs = append(errs, checkDevice(d, p)...)
	}
	return errs
}

func checkPool(pool *resourcev1.ResourcePool, at *field.Path) field.ErrorList {
	errs := checkPoolName(pool.Name, at.Child("name"))
	if n := pool.ResourceSliceCount; n <= 0 {
		errs = append(errs, field.Invalid(at.Child("resourceSliceCount"), n, "must be greater than zero"))
	}
	if n := pool.Generation; n < 0 {
		errs = append(errs, field.Invalid(at.Child("generation"), n, validation.IsNegativeErrorMsg))
	}
	return errs
}

func checkPoolName(name string, at *field.Path) field.ErrorList {
	switch {
	case name == "":
		return field.ErrorList{field.Required(at, "")}
	case len(name) > poolNameLength:
		return field.ErrorList{field.TooLong(at, "", poolNameLength)}
	}
	var errs field.ErrorList
	for _, part := range strings.Split(name, "/") {
		errs = append(errs, each(at, name, utilvalidation.IsDNS1123Subdomain(part))...)
	}
	return errs
}

// checkPlace: a slice says in exactly one way which nodes reach its devices.
func checkPlace(s *resourcev1.ResourceSliceSpec, at *field.Path) field.ErrorList {
	const ways = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required"
	var errs field.ErrorList
	n := 0
	if s.NodeName != nil {
		if *s.NodeName == "" {
			errs = append(errs, field.Invalid(at.Child("nodeName"), *s.NodeName, "must be either unset or set to a non-empty string"))
		} else {
			n++
			errs = append(errs, each(at.Child("nodeName"), *s.NodeName, utilvalidation.IsDNS1123Subdomain(*s.NodeName))...)
		}
	}
	if s.NodeSelector != nil {
		n++
		if len(s.NodeSelector.NodeSelectorTerms) != 1 {
			errs = append(errs, field.Invalid(at.Child("nodeSelector", "nodeSelectorTerms"), s.NodeSelector.NodeSelectorTerms, "must have exactly one node selector term"))
		}
	}
	for _, flag := range []struct {
		name string
		set  *bool
	}{{"allNodes", s.AllNodes}, {"perDeviceNodeSelection", s.PerDeviceNodeSelection}} {
		switch {
		case flag.set == nil:
		case *flag.set:
			n++
		default:
			errs = append(errs, field.Invalid(at.Child(flag.name), false, "must be either unset or set to true"))
		}
	}
	switch {
	case n == 0:
		errs = append(errs, field.Required(at, ways))
	case n > 1:
		errs = append(errs, field.Invalid(at, nil, ways+", but multiple fields are set"))
	}
	return errs
}

func checkDevice(d *resourcev1.Device, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if n := len(d.Attributes) + len(d.Capacity); n > resourcev1.ResourceSliceMaxAttributesAndCapacitiesPerDevice {
		errs = append(errs, field.Invalid(at, n, fmt.Sprintf("the total number of attributes and capacities must not exceed %d", resourcev1.ResourceSliceMaxAttributesAndCapacitiesPerDevice)))
	}
	for _, name := range slices.Sorted(maps.Keys(d.Attributes)) {
		p, a := at.Child("attributes").Key(string(name)), d.Attributes[name]
		errs = append(errs, checkQualified(string(name), p)...)
		n := 0
		for _, set := range []bool{a.IntValue != nil, a.BoolValue != nil, a.StringValue != nil, a.VersionValue != nil, a.IntValues != nil, a.BoolValues != nil, a.StringValues != nil, a.VersionValues != nil} {
			if set {
				n++
			}
		}
		if a.StringValue != nil && len(*a.StringValue) > resourcev1.DeviceAttributeMaxValueLength {
			errs = append(errs, field.TooLong(p.Child("string"), "", resourcev1.DeviceAttributeMaxValueLength))
		}
		if a.VersionValue != nil && len(*a.VersionValue) > resourcev1.DeviceAttributeMaxValueLength {
			errs = append(errs, field.TooLong(p.Child("version"), "", resourcev1.DeviceAttributeMaxValueLength))
		}
		if n != 1 {
			errs = append(errs, field.Invalid(p, "", "exactly one value must be specified"))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(d.Capacity)) {
		errs = append(errs, checkQualified(string(name), at.Child("capacity").Key(string(name)))...)
	}
	if n := len(d.Taints); n > resourcev1.DeviceTaintsMaxLength {
		errs = append(errs, field.TooMany(at.Child("taints"), n, resourcev1.DeviceTaintsMaxLength))
	}
	for i := range d.Taints {
		errs = append(errs, checkTaint(&d.Taints[i], at.Child("taints").Index(i))...)
	}
	return errs
}
