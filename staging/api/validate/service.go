package validate

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/validation"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const (
	balancerOnly = "may only be used when `type` is 'LoadBalancer'"
	settled      = "may not change once set"
	dayInSeconds = 86400
)

// Service answers what is wrong with a service whose addresses and ports are allocated.
func Service(s *corev1.Service) field.ErrorList {
	errs := validation.ValidateObjectMeta(&s.ObjectMeta, true, validation.NameIsDNSLabel, metadata)
	spec := field.NewPath("spec")
	headless := s.Spec.ClusterIP == corev1.ClusterIPNone
	if len(s.Spec.Ports) == 0 && !headless && s.Spec.Type != corev1.ServiceTypeExternalName {
		errs = append(errs, field.Required(spec.Child("ports"), ""))
	}
	errs = append(errs, serviceName(s, spec, headless)...)
	names := map[string]bool{}
	for i := range s.Spec.Ports {
		errs = append(errs, servicePort(&s.Spec.Ports[i], spec.Child("ports").Index(i), len(s.Spec.Ports) > 1, headless, names)...)
	}
	errs = append(errs, metav1validation.ValidateLabels(s.Spec.Selector, spec.Child("selector"))...)
	errs = append(errs, sticky(s, spec)...)
	errs = append(errs, clusterIPs(s, spec)...)
	for i, ip := range s.Spec.ExternalIPs {
		at := spec.Child("externalIPs").Index(i)
		if bad := utilvalidation.IsValidIPForLegacyField(at, ip, false, nil); len(bad) > 0 {
			errs = append(errs, bad...)
		} else {
			errs = append(errs, outward(at, ip)...)
		}
	}
	errs = append(errs, chosen(spec.Child("type"), s.Spec.Type, corev1.ServiceTypeClusterIP, corev1.ServiceTypeExternalName,
		corev1.ServiceTypeLoadBalancer, corev1.ServiceTypeNodePort)...)
	errs = append(errs, uniquePorts(s, spec.Child("ports"))...)
	errs = append(errs, balancer(s, spec)...)
	return append(errs, traffic(s, spec)...)
}

// ServiceUpdate answers what is wrong with a service in the place of old.
func ServiceUpdate(s, old *corev1.Service) field.ErrorList {
	errs := common(&s.ObjectMeta, &old.ObjectMeta, true)
	errs = append(errs, validation.ValidateObjectMetaUpdate(&s.ObjectMeta, &old.ObjectMeta, metadata)...)
	spec := field.NewPath("spec")
	if s.Spec.Type != corev1.ServiceTypeExternalName && old.Spec.Type != corev1.ServiceTypeExternalName {
		at := spec.Child("clusterIPs")
		if len(old.Spec.ClusterIPs) > 0 && old.Spec.ClusterIPs[0] != "" {
			switch {
			case len(s.Spec.ClusterIPs) == 0:
				errs = append(errs, field.Invalid(at.Index(0), s.Spec.ClusterIPs, "primary clusterIP can not be unset"))
			case s.Spec.ClusterIPs[0] != old.Spec.ClusterIPs[0]:
				errs = append(errs, field.Invalid(at.Index(0), s.Spec.ClusterIPs, settled))
			}
		}
		if len(old.Spec.ClusterIPs) > 1 && len(s.Spec.ClusterIPs) > 1 && s.Spec.ClusterIPs[1] != old.Spec.ClusterIPs[1] {
			errs = append(errs, field.Invalid(at.Index(1), s.Spec.ClusterIPs, settled))
		}
		if len(old.Spec.IPFamilies) > 0 && len(s.Spec.IPFamilies) > 0 && s.Spec.IPFamilies[0] != old.Spec.IPFamilies[0] {
			errs = append(errs, field.Invalid(spec.Child("ipFamilies").Index(0), s.Spec.IPFamilies, settled))
		}
	}
	class, was := s.Spec.LoadBalancerClass, old.Spec.LoadBalancerClass
	if s.Spec.Type == corev1.ServiceTypeLoadBalancer && old.Spec.Type == corev1.ServiceTypeLoadBalancer &&
		((class == nil) != (was == nil) || class != nil && *class != *was) {
		errs = append(errs, field.Invalid(spec.Child("loadBalancerClass"), class, settled))
	}
	errs = append(errs, balancerClass(s, spec)...)
	return append(errs, Service(s)...)
}

// serviceName checks what the service's type says of how it is found.
func serviceName(s *corev1.Service, spec *field.Path, headless bool) field.ErrorList {
	var errs field.ErrorList
	switch s.Spec.Type {
	case corev1.ServiceTypeLoadBalancer, corev1.ServiceTypeNodePort:
		if headless {
			errs = append(errs, field.Invalid(spec.Child("clusterIPs").Index(0), s.Spec.ClusterIP, "may not be set to 'None' for "+string(s.Spec.Type)+" services"))
		}
	case corev1.ServiceTypeExternalName:
		const never = "may not be set for ExternalName services"
		if len(s.Spec.ClusterIPs) > 0 {
			errs = append(errs, field.Forbidden(spec.Child("clusterIPs"), never))
		}
		if len(s.Spec.IPFamilies) > 0 {
			errs = append(errs, field.Forbidden(spec.Child("ipFamilies"), never))
		}
		if s.Spec.IPFamilyPolicy != nil {
			errs = append(errs, field.Forbidden(spec.Child("ipFamilyPolicy"), never))
		}
		at := spec.Child("externalName")
		// A name may end in the root's dot.
		if name := strings.TrimSuffix(s.Spec.ExternalName, "."); name == "" {
			errs = append(errs, field.Required(at, ""))
		} else {
			errs = append(errs, wrong(at, name, utilvalidation.IsDNS1123Subdomain(name))...)
		}
	}
	return errs
}

func servicePort(p *corev1.ServicePort, at *field.Path, named, headless bool, names map[string]bool) field.ErrorList {
	var errs field.ErrorList
	switch {
	case p.Name == "" && named:
		errs = append(errs, field.Required(at.Child("name"), ""))
	case p.Name != "":
		errs = append(errs, wrong(at.Child("name"), p.Name, utilvalidation.IsDNS1123Label(p.Name))...)
		if names[p.Name] {
			errs = append(errs, field.Duplicate(at.Child("name"), p.Name))
		}
		names[p.Name] = true
	}
	errs = append(errs, wrong(at.Child("port"), p.Port, utilvalidation.IsValidPortNum(int(p.Port)))...)
	errs = append(errs, transport(at.Child("protocol"), p.Protocol)...)
	to := at.Child("targetPort")
	if p.TargetPort.StrVal != "" || p.TargetPort.Type == 1 {
		errs = append(errs, wrong(to, p.TargetPort.StrVal, utilvalidation.IsValidPortName(p.TargetPort.StrVal))...)
	} else {
		errs = append(errs, wrong(to, p.TargetPort.IntVal, utilvalidation.IsValidPortNum(int(p.TargetPort.IntVal)))...)
	}
	if p.AppProtocol != nil {
		errs = append(errs, qualified(at.Child("appProtocol"), *p.AppProtocol)...)
	}
	return errs
}

func sticky(s *corev1.Service, spec *field.Path) field.ErrorList {
	errs := chosen(spec.Child("sessionAffinity"), s.Spec.SessionAffinity, corev1.ServiceAffinityClientIP, corev1.ServiceAffinityNone)
	at, c := spec.Child("sessionAffinityConfig"), s.Spec.SessionAffinityConfig
	switch s.Spec.SessionAffinity {
	case corev1.ServiceAffinityNone:
		if c != nil {
			errs = append(errs, field.Forbidden(at, "must not be set when session affinity is None"))
		}
	case corev1.ServiceAffinityClientIP:
		switch {
		case c == nil:
			errs = append(errs, field.Required(at, "when session affinity type is ClientIP"))
		case c.ClientIP == nil:
			errs = append(errs, field.Required(at.Child("clientIP"), "when session affinity type is ClientIP"))
		case c.ClientIP.TimeoutSeconds == nil:
			errs = append(errs, field.Required(at.Child("clientIP", "timeoutSeconds"), "when session affinity type is ClientIP"))
		default:
			if v := *c.ClientIP.TimeoutSeconds; v <= 0 || v > dayInSeconds {
				errs = append(errs, field.Invalid(at.Child("clientIP", "timeoutSeconds"), v, "must be greater than 0 and less than 86400"))
			}
		}
	}
	return errs
}

// uniquePorts refuses two ports that would be one: by number outside, by number inside.
func uniquePorts(s *corev1.Service, ports *field.Path) field.ErrorList {
	var errs field.ErrorList
	type number struct {
		protocol corev1.Protocol
		port     int32
	}
	outside, inside := map[number]bool{}, map[number]bool{}
	for i, p := range s.Spec.Ports {
		if p.NodePort == 0 {
			continue
		}
		at, n := ports.Index(i).Child("nodePort"), number{p.Protocol, p.NodePort}
		if s.Spec.Type == corev1.ServiceTypeClusterIP {
			errs = append(errs, field.Forbidden(at, "may not be used when `type` is 'ClusterIP'"))
		}
		if outside[n] {
			errs = append(errs, field.Duplicate(at, p.NodePort))
		}
		outside[n] = true
	}
	for i, p := range s.Spec.Ports {
		n := number{p.Protocol, p.Port}
		if inside[n] {
			errs = append(errs, field.Duplicate(ports.Index(i), struct {
				Name, Protocol             string
				AppProtocol                *string
				Port, TargetPort, NodePort int32
			}{Protocol: string(p.Protocol), Port: p.Port}))
		}
		inside[n] = true
	}
	return errs
}
