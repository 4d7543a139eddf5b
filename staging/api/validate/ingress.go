package validate

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/validation"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"
)

// ingressClass is the annotation that named an ingress's class before there was a field for it.
const ingressClass = "kubernetes.io/ingress.class"

// Ingress answers what is wrong with an ingress.
func Ingress(i *networkingv1.Ingress) field.ErrorList {
	errs := ingressBody(i)
	if _, ok := i.Annotations[ingressClass]; ok && i.Spec.IngressClassName != nil {
		errs = append(errs, field.Invalid(metadata.Child("annotations").Child(ingressClass), i.Annotations[ingressClass],
			"can not be set when the class field is also set"))
	}
	return errs
}

// IngressUpdate answers what is wrong with an ingress in the place of old.
func IngressUpdate(i, old *networkingv1.Ingress) field.ErrorList {
	errs := common(&i.ObjectMeta, &old.ObjectMeta, true)
	errs = append(errs, validation.ValidateObjectMetaUpdate(&i.ObjectMeta, &old.ObjectMeta, metadata)...)
	return append(errs, ingressBody(i)...)
}

func ingressBody(i *networkingv1.Ingress) field.ErrorList {
	errs := validation.ValidateObjectMeta(&i.ObjectMeta, true, validation.NameIsDNSSubdomain, metadata)
	spec, s := field.NewPath("spec"), &i.Spec
	if len(s.Rules) == 0 && s.DefaultBackend == nil {
		errs = append(errs, field.Invalid(spec, s.Rules, "either `defaultBackend` or `rules` must be specified"))
	}
	if s.DefaultBackend != nil {
		errs = append(errs, backend(s.DefaultBackend, spec.Child("defaultBackend"))...)
	}
	for j, r := range s.Rules {
		errs = append(errs, ingressRule(&r, spec.Child("rules").Index(j))...)
	}
	for j, t := range s.TLS {
		at := spec.Child("tls").Index(j)
		for k, h := range t.Hosts {
			errs = append(errs, hostName(h, at.Child("hosts").Index(k))...)
		}
		if t.SecretName != "" {
			errs = append(errs, wrong(at.Child("secretName"), t.SecretName, utilvalidation.IsDNS1123Subdomain(t.SecretName))...)
		}
	}
	if c := s.IngressClassName; c != nil {
		errs = append(errs, wrong(spec.Child("ingressClassName"), *c, utilvalidation.IsDNS1123Subdomain(*c))...)
	}
	return errs
}

// hostName checks a host, whose first label may be a star.
func hostName(h string, at *field.Path) field.ErrorList {
	if strings.Contains(h, "*") {
		return wrong(at, h, utilvalidation.IsWildcardDNS1123Subdomain(h))
	}
	return wrong(at, h, utilvalidation.IsDNS1123Subdomain(h))
}

func ingressRule(r *networkingv1.IngressRule, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if r.Host != "" {
		if netutils.ParseIPSloppy(r.Host) != nil {
			errs = append(errs, field.Invalid(at.Child("host"), r.Host, "must be a DNS name, not an IP address"))
		}
		errs = append(errs, hostName(r.Host, at.Child("host"))...)
	}
	if r.HTTP == nil {
		return errs
	}
	paths := at.Child("http", "paths")
	if len(r.HTTP.Paths) == 0 {
		errs = append(errs, field.Required(paths, ""))
	}
	for i, p := range r.HTTP.Paths {
		at := paths.Index(i)
		if p.PathType == nil {
			errs = append(errs, field.Required(at.Child("pathType"), "pathType must be specified"))
			continue
		}
		errs = append(errs, ingressPath(p.Path, *p.PathType, at)...)
		errs = append(errs, backend(&p.Backend, at.Child("backend"))...)
	}
	return errs
}

func ingressPath(p string, kind networkingv1.PathType, at *field.Path) field.ErrorList {
	switch kind {
	case networkingv1.PathTypeExact, networkingv1.PathTypePrefix:
	case networkingv1.PathTypeImplementationSpecific:
		if p == "" {
			return nil
		}
	default:
		return field.ErrorList{field.NotSupported(at.Child("pathType"), kind, []networkingv1.PathType{
			networkingv1.PathTypeExact, networkingv1.PathTypeImplementationSpecific, networkingv1.PathTypePrefix,
		})}
	}
	at = at.Child("path")
	if !strings.HasPrefix(p, "/") {
		return field.ErrorList{field.Invalid(at, p, "must be an absolute path")}
	}
	if kind == networkingv1.PathTypeImplementationSpecific {
		return nil
	}
	var errs field.ErrorList
	for _, part := range []string{"//", "/./", "/../", "%2f", "%2F"} {
		if strings.Contains(p, part) {
			errs = append(errs, field.Invalid(at, p, "must not contain '"+part+"'"))
		}
	}
	for _, end := range []string{"/..", "/."} {
		if strings.HasSuffix(p, end) {
			errs = append(errs, field.Invalid(at, p, "cannot end with '"+end+"'"))
		}
	}
	return errs
}

func backend(b *networkingv1.IngressBackend, at *field.Path) field.ErrorList {
	switch {
	case b.Resource != nil && b.Service != nil:
		return field.ErrorList{field.Invalid(at, "", "cannot set both resource and service backends")}
	case b.Resource != nil:
		return local(b.Resource, at.Child("resource"))
	case b.Service == nil:
		return field.ErrorList{field.Invalid(at, "", "resource or service backend is required")}
	}
	var errs field.ErrorList
	s, of := b.Service, at.Child("service")
	if s.Name == "" {
		errs = append(errs, field.Required(of.Child("name"), ""))
	} else {
		errs = append(errs, wrong(of.Child("name"), s.Name, utilvalidation.IsDNS1123Label(s.Name))...)
	}
	switch port := of.Child("port"); {
	case s.Port.Name != "" && s.Port.Number != 0:
		errs = append(errs, field.Invalid(at, "", "cannot set both port name & port number"))
	case s.Port.Name != "":
		errs = append(errs, wrong(port.Child("name"), s.Port.Name, utilvalidation.IsValidPortName(s.Port.Name))...)
	case s.Port.Number != 0:
		errs = append(errs, wrong(port.Child("number"), s.Port.Number, utilvalidation.IsValidPortNum(int(s.Port.Number)))...)
	default:
		errs = append(errs, field.Required(at, "port name or number is required"))
	}
	return errs
}

func local(r *corev1.TypedLocalObjectReference, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if r.APIGroup != nil {
		errs = append(errs, wrong(at.Child("apiGroup"), *r.APIGroup, utilvalidation.IsDNS1123Subdomain(*r.APIGroup))...)
	}
	if r.Kind == "" {
		errs = append(errs, field.Required(at.Child("kind"), "kind is required"))
	}
	if r.Name == "" {
		errs = append(errs, field.Required(at.Child("name"), "name is required"))
	}
	return errs
}
