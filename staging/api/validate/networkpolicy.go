package validate

import (
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/intstr"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"
)

// NetworkPolicy answers what is wrong with a network policy.
func NetworkPolicy(p *networkingv1.NetworkPolicy) field.ErrorList {
	errs := validation.ValidateObjectMeta(&p.ObjectMeta, true, validation.NameIsDNSSubdomain, metadata)
	return append(errs, policySpec(&p.Spec)...)
}

// NetworkPolicyUpdate answers what is wrong with a network policy in the place of old.
func NetworkPolicyUpdate(p, old *networkingv1.NetworkPolicy) field.ErrorList {
	errs := common(&p.ObjectMeta, &old.ObjectMeta, true)
	errs = append(errs, validation.ValidateObjectMetaUpdate(&p.ObjectMeta, &old.ObjectMeta, metadata)...)
	return append(errs, policySpec(&p.Spec)...)
}

func policySpec(s *networkingv1.NetworkPolicySpec) field.ErrorList {
	spec := field.NewPath("spec")
	errs := labelSelector(&s.PodSelector, spec.Child("podSelector"))
	for i, r := range s.Ingress {
		at := spec.Child("ingress").Index(i)
		errs = append(errs, policyPorts(r.Ports, at.Child("ports"))...)
		errs = append(errs, policyPeers(r.From, at.Child("from"))...)
	}
	for i, r := range s.Egress {
		at := spec.Child("egress").Index(i)
		errs = append(errs, policyPorts(r.Ports, at.Child("ports"))...)
		errs = append(errs, policyPeers(r.To, at.Child("to"))...)
	}
	types := spec.Child("policyTypes")
	if len(s.PolicyTypes) > 2 {
		return append(errs, field.Invalid(types, s.PolicyTypes, "may not specify more than two policyTypes"))
	}
	for i, t := range s.PolicyTypes {
		errs = append(errs, among(types.Index(i), t, networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress)...)
	}
	return errs
}

func policyPorts(ports []networkingv1.NetworkPolicyPort, of *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, p := range ports {
		at := of.Index(i)
		if p.Protocol != nil {
			errs = append(errs, among(at.Child("protocol"), *p.Protocol, corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP)...)
		}
		end := at.Child("endPort")
		switch {
		case p.Port == nil:
			if p.EndPort != nil {
				errs = append(errs, field.Invalid(end, *p.EndPort, "may not be specified when `port` is not specified"))
			}
		case p.Port.Type == intstr.Int:
			errs = append(errs, wrong(at.Child("port"), p.Port.IntVal, utilvalidation.IsValidPortNum(int(p.Port.IntVal)))...)
			if p.EndPort == nil {
				continue
			}
			if *p.EndPort < p.Port.IntVal {
				// Upstream names the port's value here, not that of the end.
				errs = append(errs, field.Invalid(end, p.Port.IntVal, "must be greater than or equal to `port`"))
			}
			errs = append(errs, wrong(end, *p.EndPort, utilvalidation.IsValidPortNum(int(*p.EndPort)))...)
		default:
			if p.EndPort != nil {
				errs = append(errs, field.Invalid(end, *p.EndPort, "may not be specified when `port` is non-numeric"))
			}
			errs = append(errs, wrong(at.Child("port"), p.Port.StrVal, utilvalidation.IsValidPortName(p.Port.StrVal))...)
		}
	}
	return errs
}

func policyPeers(peers []networkingv1.NetworkPolicyPeer, of *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, p := range peers {
		at, forms := of.Index(i), 0
		if p.PodSelector != nil {
			forms++
			errs = append(errs, labelSelector(p.PodSelector, at.Child("podSelector"))...)
		}
		if p.NamespaceSelector != nil {
			forms++
			errs = append(errs, labelSelector(p.NamespaceSelector, at.Child("namespaceSelector"))...)
		}
		if p.IPBlock != nil {
			errs = append(errs, block(p.IPBlock, at.Child("ipBlock"))...)
			if forms > 0 {
				errs = append(errs, field.Forbidden(at, "may not specify both ipBlock and another peer"))
			}
			forms++
		}
		if forms == 0 {
			errs = append(errs, field.Required(at, "must specify a peer"))
		}
	}
	return errs
}

func block(b *networkingv1.IPBlock, at *field.Path) field.ErrorList {
	if b.CIDR == "" {
		return field.ErrorList{field.Required(at.Child("cidr"), "")}
	}
	errs := utilvalidation.IsValidCIDRForLegacyField(at.Child("cidr"), b.CIDR, false, nil)
	_, whole, err := netutils.ParseCIDRSloppy(b.CIDR)
	if err != nil {
		return errs
	}
	size, _ := whole.Mask.Size()
	for i, e := range b.Except {
		at := at.Child("except").Index(i)
		_, part, err := netutils.ParseCIDRSloppy(e)
		if err != nil {
			errs = append(errs, utilvalidation.IsValidCIDRForLegacyField(at, e, false, nil)...)
			continue
		}
		if n, _ := part.Mask.Size(); !whole.Contains(part.IP) || n <= size {
			errs = append(errs, field.Invalid(at, e, "must be a strict subset of `cidr`"))
		}
	}
	return errs
}

// labelSelector checks a selector of labels.
func labelSelector(s *metav1.LabelSelector, at *field.Path) field.ErrorList {
	return metav1validation.ValidateLabelSelector(s, metav1validation.LabelSelectorValidationOptions{}, at)
}
