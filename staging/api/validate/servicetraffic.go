package validate

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"
)

// ServiceAddresses answers what is wrong with a service's addresses inside the cluster and the families they are of, on any cluster.
func ServiceAddresses(s *corev1.Service) field.ErrorList { return clusterIPs(s, field.NewPath("spec")) }

// clusterIPs checks a service's addresses inside the cluster and the families they are of.
func clusterIPs(s *corev1.Service, spec *field.Path) field.ErrorList {
	if s.Spec.Type == corev1.ServiceTypeExternalName {
		return nil // serviceName forbids them all
	}
	var errs field.ErrorList
	ips, families := spec.Child("clusterIPs"), spec.Child("ipFamilies")
	if s.Spec.ClusterIP != "" && len(s.Spec.ClusterIPs) > 0 && s.Spec.ClusterIPs[0] != s.Spec.ClusterIP {
		errs = append(errs, field.Invalid(ips, s.Spec.ClusterIPs, "first value must match `clusterIP`"))
	}
	if s.Spec.ClusterIP == "" && len(s.Spec.ClusterIPs) > 0 {
		errs = append(errs, field.Invalid(ips, s.Spec.ClusterIPs, "must be empty when `clusterIP` is not specified"))
	}
	seen := map[corev1.IPFamily]bool{}
	for i, f := range s.Spec.IPFamilies {
		errs = append(errs, among(families.Index(i), f, corev1.IPv4Protocol, corev1.IPv6Protocol)...)
		if seen[f] {
			errs = append(errs, field.Duplicate(families.Index(i), f))
		}
		seen[f] = true
	}
	if p := s.Spec.IPFamilyPolicy; p != nil {
		errs = append(errs, among(spec.Child("ipFamilyPolicy"), *p, corev1.IPFamilyPolicyPreferDualStack,
			corev1.IPFamilyPolicyRequireDualStack, corev1.IPFamilyPolicySingleStack)...)
	}
	if len(s.Spec.ClusterIPs) > 2 {
		errs = append(errs, field.Invalid(ips, s.Spec.ClusterIPs, "may only hold up to 2 values"))
	}
	for i, ip := range s.Spec.ClusterIPs {
		if ip == corev1.ClusterIPNone {
			if len(s.Spec.ClusterIPs) > 1 {
				errs = append(errs, field.Invalid(ips, s.Spec.ClusterIPs, "'None' must be the first and only value"))
			}
			continue
		}
		if bad := utilvalidation.IsValidIPForLegacyField(ips.Index(i), ip, false, nil); len(bad) > 0 {
			errs = append(errs, bad...)
			continue
		}
		if i < len(s.Spec.IPFamilies) && netutils.IsIPv6String(ip) != (s.Spec.IPFamilies[i] == corev1.IPv6Protocol) {
			errs = append(errs, field.Invalid(ips.Index(i), ip, fmt.Sprintf("expected an %v value as indicated by `ipFamilies[%v]`", s.Spec.IPFamilies[i], i)))
		}
	}
	return errs
}

// balancer checks what only a service with a load balancer may have.
func balancer(s *corev1.Service, spec *field.Path) field.ErrorList {
	var errs field.ErrorList
	is := s.Spec.Type == corev1.ServiceTypeLoadBalancer
	at := spec.Child("LoadBalancerSourceRanges")
	if ranges := s.Spec.LoadBalancerSourceRanges; len(ranges) > 0 {
		if !is {
			errs = append(errs, field.Forbidden(at, balancerOnly))
		}
		for i, r := range ranges {
			errs = append(errs, utilvalidation.IsValidCIDRForLegacyField(at.Index(i), strings.TrimSpace(r), false, nil)...)
		}
	} else if text, ok := s.Annotations[corev1.AnnotationLoadBalancerSourceRangesKey]; ok {
		at := metadata.Child("annotations").Key(corev1.AnnotationLoadBalancerSourceRangesKey)
		if !is {
			errs = append(errs, field.Forbidden(at, balancerOnly))
		}
		if text = strings.TrimSpace(text); text != "" {
			for _, r := range strings.Split(text, ",") {
				errs = append(errs, utilvalidation.IsValidCIDRForLegacyField(at, strings.TrimSpace(r), false, nil)...)
			}
		}
	}
	if s.Spec.AllocateLoadBalancerNodePorts != nil && !is {
		errs = append(errs, field.Forbidden(spec.Child("allocateLoadBalancerNodePorts"), balancerOnly))
	}
	if s.Spec.AllocateLoadBalancerNodePorts == nil && is {
		errs = append(errs, field.Required(spec.Child("allocateLoadBalancerNodePorts"), ""))
	}
	return append(errs, balancerClass(s, spec)...)
}

func balancerClass(s *corev1.Service, spec *field.Path) field.ErrorList {
	class, at := s.Spec.LoadBalancerClass, spec.Child("loadBalancerClass")
	switch {
	case class == nil:
		return nil
	case s.Spec.Type != corev1.ServiceTypeLoadBalancer:
		return field.ErrorList{field.Forbidden(at, balancerOnly)}
	}
	return qualified(at, *class)
}

// traffic checks to which endpoints a service's traffic may go.
func traffic(s *corev1.Service, spec *field.Path) field.ErrorList {
	var errs field.ErrorList
	at, policy := spec.Child("externalTrafficPolicy"), s.Spec.ExternalTrafficPolicy
	switch {
	case !reachable(s):
		if policy != "" {
			errs = append(errs, field.Invalid(at, policy, "may only be set for externally-accessible services"))
		}
	default:
		errs = append(errs, chosen(at, policy, corev1.ServiceExternalTrafficPolicyCluster, corev1.ServiceExternalTrafficPolicyLocal)...)
	}
	if p := s.Spec.HealthCheckNodePort; p != 0 && (s.Spec.Type != corev1.ServiceTypeLoadBalancer || policy != corev1.ServiceExternalTrafficPolicyLocal) {
		errs = append(errs, field.Invalid(spec.Child("healthCheckNodePort"), p, "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'"))
	}
	at = spec.Child("internalTrafficPolicy")
	if p := s.Spec.InternalTrafficPolicy; p != nil {
		errs = append(errs, among(at, *p, corev1.ServiceInternalTrafficPolicyCluster, corev1.ServiceInternalTrafficPolicyLocal)...)
	} else if reachable(s) || s.Spec.Type == corev1.ServiceTypeClusterIP {
		errs = append(errs, field.Required(at, ""))
	}
	if d := s.Spec.TrafficDistribution; d != nil {
		errs = append(errs, among(spec.Child("trafficDistribution"), *d, corev1.ServiceTrafficDistributionPreferClose,
			corev1.ServiceTrafficDistributionPreferSameNode, corev1.ServiceTrafficDistributionPreferSameZone)...)
	}
	return errs
}

// reachable tells that a service takes traffic from outside the cluster.
func reachable(s *corev1.Service) bool {
	switch s.Spec.Type {
	case corev1.ServiceTypeLoadBalancer, corev1.ServiceTypeNodePort:
		return true
	case corev1.ServiceTypeClusterIP:
		return len(s.Spec.ExternalIPs) > 0
	}
	return false
}
