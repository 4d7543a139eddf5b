package validate

import (
	"net/netip"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/validation"
	pathvalidation "k8s.io/apimachinery/pkg/api/validation/path"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// controllerLength is the most characters of an ingress controller's name.
const controllerLength = 250

// IngressClass answers what is wrong with an ingress class.
func IngressClass(c *networkingv1.IngressClass) field.ErrorList {
	errs := validation.ValidateObjectMeta(&c.ObjectMeta, false, validation.NameIsDNSSubdomain, metadata)
	return append(errs, ingressClassSpec(&c.Spec)...)
}

// IngressClassUpdate answers what is wrong with an ingress class in the place of old.
func IngressClassUpdate(c, old *networkingv1.IngressClass) field.ErrorList {
	errs := common(&c.ObjectMeta, &old.ObjectMeta, false)
	errs = append(errs, validation.ValidateImmutableField(c.Spec.Controller, old.Spec.Controller, field.NewPath("spec", "controller"))...)
	return append(errs, ingressClassSpec(&c.Spec)...)
}

func ingressClassSpec(s *networkingv1.IngressClassSpec) field.ErrorList {
	at := field.NewPath("spec")
	errs := required(s.Controller, at.Child("controller"))
	switch {
	case len(s.Controller) > controllerLength:
		errs = append(errs, field.TooLong(at.Child("controller"), "", controllerLength))
	case s.Controller != "":
		errs = append(errs, utilvalidation.IsDomainPrefixedPath(at.Child("controller"), s.Controller)...)
	}
	p := s.Parameters
	if p == nil {
		return errs
	}
	at = at.Child("parameters")
	if p.APIGroup != nil {
		errs = append(errs, wrong(at.Child("apiGroup"), *p.APIGroup, utilvalidation.IsDNS1123Subdomain(*p.APIGroup))...)
	}
	errs = append(errs, segment(p.Kind, at.Child("kind"))...)
	errs = append(errs, segment(p.Name, at.Child("name"))...)
	if p.Scope == nil {
		return append(errs, field.Required(at.Child("scope"), ""))
	}
	switch scope := *p.Scope; scope {
	case networkingv1.IngressClassParametersReferenceScopeNamespace:
		if p.Namespace == nil {
			return append(errs, field.Required(at.Child("namespace"), "`parameters.scope` is set to 'Namespace'"))
		}
		return append(errs, wrong(at.Child("namespace"), *p.Namespace, validation.ValidateNamespaceName(*p.Namespace, false))...)
	default:
		if p.Namespace != nil {
			errs = append(errs, field.Forbidden(at.Child("namespace"), "`parameters.scope` is set to '"+scope+"'"))
		}
		return append(errs, among(at.Child("scope"), scope, networkingv1.IngressClassParametersReferenceScopeCluster, networkingv1.IngressClassParametersReferenceScopeNamespace)...)
	}
}

// segment refuses what is empty or cannot stand alone in a URL's path.
func segment(s string, at *field.Path) field.ErrorList {
	if s == "" {
		return field.ErrorList{field.Required(at, "")}
	}
	return wrong(at, s, pathvalidation.IsValidPathSegmentName(s))
}

// ServiceCIDR answers what is wrong with a range of service addresses.
func ServiceCIDR(c *networkingv1.ServiceCIDR) field.ErrorList {
	errs := validation.ValidateObjectMeta(&c.ObjectMeta, false, validation.NameIsDNSSubdomain, metadata)
	at := field.NewPath("spec", "cidrs")
	switch n := len(c.Spec.CIDRs); {
	case n == 0:
		return append(errs, field.Required(at, "at least one CIDR required"))
	case n > 2:
		return append(errs, field.Invalid(at, c.Spec.CIDRs, "may only hold up to 2 values"))
	case n == 2:
		a, _ := netip.ParsePrefix(c.Spec.CIDRs[0]) // what is no CIDR is told below
		b, _ := netip.ParsePrefix(c.Spec.CIDRs[1])
		if a.IsValid() && b.IsValid() && a.Addr().Is4() == b.Addr().Is4() {
			errs = append(errs, field.Invalid(at, c.Spec.CIDRs, "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64"))
		}
	}
	for i, cidr := range c.Spec.CIDRs {
		errs = append(errs, utilvalidation.IsValidCIDR(at.Index(i), cidr)...)
	}
	return errs
}

// ServiceCIDRUpdate answers what is wrong with a range of service addresses in the place of old: all that may be changed
// is that a second family comes.
func ServiceCIDRUpdate(c, old *networkingv1.ServiceCIDR) field.ErrorList {
	errs := common(&c.ObjectMeta, &old.ObjectMeta, false)
	at := field.NewPath("spec", "cidrs")
	if len(c.Spec.CIDRs) < len(old.Spec.CIDRs) {
		return append(errs, field.Invalid(at, c.Spec.CIDRs, validation.FieldImmutableErrorMsg))
	}
	for i := range old.Spec.CIDRs {
		errs = append(errs, validation.ValidateImmutableField(c.Spec.CIDRs[i], old.Spec.CIDRs[i], at.Index(i))...)
	}
	if len(c.Spec.CIDRs) > len(old.Spec.CIDRs) {
		errs = append(errs, ServiceCIDR(c)...)
	}
	return errs
}

// IPAddress answers what is wrong with an allocated address; name tells whether its name is one.
func IPAddress(a *networkingv1.IPAddress, name validation.ValidateNameFunc) field.ErrorList {
	errs := validation.ValidateObjectMeta(&a.ObjectMeta, false, name, metadata)
	at, r := field.NewPath("spec", "parentRef"), a.Spec.ParentRef
	if r == nil {
		return append(errs, field.Required(at, ""))
	}
	if r.Group != "" {
		errs = append(errs, wrong(at.Child("group"), r.Group, utilvalidation.IsDNS1123Subdomain(r.Group))...)
	}
	errs = append(errs, segment(r.Resource, at.Child("resource"))...)
	errs = append(errs, segment(r.Name, at.Child("name"))...)
	if r.Namespace != "" {
		errs = append(errs, wrong(at.Child("namespace"), r.Namespace, pathvalidation.IsValidPathSegmentName(r.Namespace))...)
	}
	return errs
}

// IPAddressUpdate answers what is wrong with an allocated address in the place of old.
func IPAddressUpdate(a, old *networkingv1.IPAddress) field.ErrorList {
	errs := common(&a.ObjectMeta, &old.ObjectMeta, false)
	return append(errs, validation.ValidateImmutableField(a.Spec.ParentRef, old.Spec.ParentRef, field.NewPath("spec", "parentRef"))...)
}
