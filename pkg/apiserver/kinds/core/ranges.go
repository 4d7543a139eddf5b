package core

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/staging/api/validate"
)

// Ranges are where a service's addresses and ports come from. Every one handed out is an object in etcd (an IPAddress,
// a bit of a RangeAllocation), so no two servers can hand out the same.
type Ranges struct {
	ServiceCIDRs []netip.Prefix // one or two, of different families; the first is the primary
	NodePorts    PortRange
}

// PortRange is the node ports, both ends included.
type PortRange struct{ Low, High int32 }

func (r PortRange) String() string { return fmt.Sprintf("%d-%d", r.Low, r.High) }

// family is a CIDR's IP family.
func family(p netip.Prefix) corev1.IPFamily {
	if p.Addr().Is4() {
		return corev1.IPv4Protocol
	}
	return corev1.IPv6Protocol
}

// cidr answers the range of a family.
func (r Ranges) cidr(f corev1.IPFamily) (netip.Prefix, bool) {
	for _, p := range r.ServiceCIDRs {
		if family(p) == f {
			return p, true
		}
	}
	return netip.Prefix{}, false
}

// prepareService keeps what an update leaves out, as clients that know nothing of addresses and ports do, and drops
// what the service's type has no use for.
func (r Ranges) prepareService(_ *kind.Op, s, old *corev1.Service) {
	if old == nil {
		s.Status = corev1.ServiceStatus{}
		r.families(s, nil)
		return
	}
	if s.Spec.Type != corev1.ServiceTypeExternalName && old.Spec.Type != corev1.ServiceTypeExternalName {
		if s.Spec.ClusterIP == "" && len(s.Spec.ClusterIPs) == 0 {
			s.Spec.ClusterIP, s.Spec.ClusterIPs = old.Spec.ClusterIP, slices.Clone(old.Spec.ClusterIPs)
		}
		if len(s.Spec.IPFamilies) == 0 {
			s.Spec.IPFamilies = slices.Clone(old.Spec.IPFamilies)
		}
		if s.Spec.IPFamilyPolicy == nil {
			s.Spec.IPFamilyPolicy = old.Spec.IPFamilyPolicy
		}
		if s.Spec.HealthCheckNodePort == 0 && needsHealthPort(s) && needsHealthPort(old) {
			s.Spec.HealthCheckNodePort = old.Spec.HealthCheckNodePort
		}
		for i := range s.Spec.Ports {
			keepNodePort(&s.Spec.Ports[i], s, old)
		}
	}
	dropUnused(s, old)
	r.families(s, old)
}

func keepNodePort(p *corev1.ServicePort, s, old *corev1.Service) {
	if p.NodePort != 0 || !needsNodePorts(s) {
		return
	}
	for _, was := range old.Spec.Ports {
		if was.NodePort != 0 && was.Port == p.Port && was.Protocol == p.Protocol && was.Name == p.Name {
			p.NodePort = was.NodePort
		}
	}
}

// dropUnused clears what belongs to the type that the service no longer has, where the client left it as it was.
func dropUnused(s, old *corev1.Service) {
	if s.Spec.Type == corev1.ServiceTypeExternalName && old.Spec.Type != corev1.ServiceTypeExternalName {
		if s.Spec.ClusterIP == old.Spec.ClusterIP {
			s.Spec.ClusterIP, s.Spec.ClusterIPs = "", nil
		}
		if slices.Equal(s.Spec.IPFamilies, old.Spec.IPFamilies) {
			s.Spec.IPFamilies = nil
		}
		if reflect.DeepEqual(s.Spec.IPFamilyPolicy, old.Spec.IPFamilyPolicy) {
			s.Spec.IPFamilyPolicy = nil
		}
	}
	if needsNodePorts(old) && !needsNodePorts(s) {
		for i := range s.Spec.Ports {
			for _, was := range old.Spec.Ports {
				if was.NodePort == s.Spec.Ports[i].NodePort {
					s.Spec.Ports[i].NodePort = 0
				}
			}
		}
	}
	if takesTraffic(old) && !takesTraffic(s) && s.Spec.ExternalTrafficPolicy == old.Spec.ExternalTrafficPolicy {
		s.Spec.ExternalTrafficPolicy = ""
	}
	if needsHealthPort(old) && !needsHealthPort(s) && s.Spec.HealthCheckNodePort == old.Spec.HealthCheckNodePort {
		s.Spec.HealthCheckNodePort = 0
	}
	if s.Spec.Type != corev1.ServiceTypeLoadBalancer && old.Spec.Type == corev1.ServiceTypeLoadBalancer {
		s.Spec.AllocateLoadBalancerNodePorts = nil
		if reflect.DeepEqual(s.Spec.LoadBalancerClass, old.Spec.LoadBalancerClass) {
			s.Spec.LoadBalancerClass = nil
		}
		s.Status.LoadBalancer = corev1.LoadBalancerStatus{}
	}
}

// families fills in which IP families the service has. Whether the cluster has them is found as addresses are taken.
func (r Ranges) families(s, old *corev1.Service) {
	if s.Spec.Type == corev1.ServiceTypeExternalName || len(r.ServiceCIDRs) == 0 {
		return
	}
	if s.Spec.ClusterIP == "" && len(s.Spec.ClusterIPs) > 0 && old != nil {
		s.Spec.ClusterIP = s.Spec.ClusterIPs[0]
	}
	if s.Spec.ClusterIP != "" && len(s.Spec.ClusterIPs) == 0 {
		s.Spec.ClusterIPs = []string{s.Spec.ClusterIP}
	}
	policy := corev1.IPFamilyPolicySingleStack
	if anywhere(s) {
		policy = corev1.IPFamilyPolicyRequireDualStack
	}
	if s.Spec.IPFamilyPolicy == nil {
		s.Spec.IPFamilyPolicy = &policy
	}
	dual := *s.Spec.IPFamilyPolicy != corev1.IPFamilyPolicySingleStack
	if old != nil && !dual { // that alone says what to let go
		if len(s.Spec.ClusterIPs) > 1 && slices.Equal(s.Spec.ClusterIPs, old.Spec.ClusterIPs) {
			s.Spec.ClusterIPs = s.Spec.ClusterIPs[:1]
		}
		if len(s.Spec.IPFamilies) > 1 && slices.Equal(s.Spec.IPFamilies, old.Spec.IPFamilies) {
			s.Spec.IPFamilies = s.Spec.IPFamilies[:1]
		}
	}
	for i, ip := range s.Spec.ClusterIPs {
		if a, err := netip.ParseAddr(ip); err == nil && i >= len(s.Spec.IPFamilies) {
			s.Spec.IPFamilies = append(s.Spec.IPFamilies, family(netip.PrefixFrom(a, a.BitLen())))
		}
	}
	if len(s.Spec.IPFamilies) == 0 {
		s.Spec.IPFamilies = []corev1.IPFamily{family(r.ServiceCIDRs[0])}
	}
	if !dual || len(s.Spec.IPFamilies) > 1 || len(r.ServiceCIDRs) < 2 && !anywhere(s) {
		return
	}
	other := corev1.IPv4Protocol
	if s.Spec.IPFamilies[0] == other {
		other = corev1.IPv6Protocol
	}
	s.Spec.IPFamilies = append(s.Spec.IPFamilies, other)
}

// anywhere tells that a service is only a name for endpoints that somebody else writes, of whatever family.
func anywhere(s *corev1.Service) bool {
	return s.Spec.ClusterIP == corev1.ClusterIPNone && len(s.Spec.Selector) == 0
}

// unfit answers which families the service cannot have, on this cluster or by its own policy.
func (r Ranges) unfit(s, was *corev1.Service) field.ErrorList {
	if s.Spec.Type == corev1.ServiceTypeExternalName || s.Spec.IPFamilyPolicy == nil || len(r.ServiceCIDRs) == 0 {
		return nil
	}
	var errs field.ErrorList
	spec, policy := field.NewPath("spec"), *s.Spec.IPFamilyPolicy
	at := spec.Child("ipFamilyPolicy")
	if policy == corev1.IPFamilyPolicySingleStack {
		const must = "must be 'RequireDualStack' or 'PreferDualStack' when multiple "
		if len(s.Spec.ClusterIPs) > 1 {
			errs = append(errs, field.Invalid(at, policy, must+"cluster IPs are specified"))
		}
		if len(s.Spec.IPFamilies) > 1 {
			errs = append(errs, field.Invalid(at, policy, must+"IP families are specified"))
		}
	} else if was != nil {
		const must = "must be 'SingleStack' to release the secondary "
		if n := len(s.Spec.ClusterIPs); n > 0 && n < len(was.Spec.ClusterIPs) {
			errs = append(errs, field.Invalid(at, policy, must+"cluster IP"))
		}
		if n := len(s.Spec.IPFamilies); n > 0 && n < len(was.Spec.IPFamilies) {
			errs = append(errs, field.Invalid(at, policy, must+"IP family"))
		}
	}
	if anywhere(s) || len(errs) > 0 {
		return errs
	}
	if policy == corev1.IPFamilyPolicyRequireDualStack && len(r.ServiceCIDRs) < 2 {
		errs = append(errs, field.Invalid(at, policy, "this cluster is not configured for dual-stack services"))
	}
	for i, f := range s.Spec.IPFamilies {
		if _, ok := r.cidr(f); !ok {
			errs = append(errs, field.Invalid(spec.Child("ipFamilies").Index(i), f, "not configured on this cluster"))
		}
	}
	return errs
}

func hasClusterIP(s *corev1.Service) bool {
	return s != nil && s.Spec.Type != corev1.ServiceTypeExternalName && s.Spec.ClusterIP != corev1.ClusterIPNone
}

func needsNodePorts(s *corev1.Service) bool {
	switch s.Spec.Type {
	case corev1.ServiceTypeNodePort:
		return true
	case corev1.ServiceTypeLoadBalancer:
		return s.Spec.AllocateLoadBalancerNodePorts == nil || *s.Spec.AllocateLoadBalancerNodePorts
	}
	return false
}

// takesTraffic tells that a service is reached from outside the cluster.
func takesTraffic(s *corev1.Service) bool {
	return s.Spec.Type == corev1.ServiceTypeNodePort || s.Spec.Type == corev1.ServiceTypeLoadBalancer ||
		s.Spec.Type == corev1.ServiceTypeClusterIP && len(s.Spec.ExternalIPs) > 0
}

func needsHealthPort(s *corev1.Service) bool {
	return s.Spec.Type == corev1.ServiceTypeLoadBalancer && s.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal
}

// reservation is what one write took, and what it makes free if it is stored.
type reservation struct {
	taken, freed []func()
}

func (r *reservation) done(stored bool) {
	give := r.taken
	if stored {
		give = r.freed
	}
	for _, f := range give {
		f()
	}
}

// reserve takes the addresses and ports that a service needs; see kind.Def.Begin.
func (r Ranges) reserve(op *kind.Op, obj, old kind.Object) (func(bool), error) {
	s, _ := obj.(*corev1.Service)
	was, _ := old.(*corev1.Service)
	res := &reservation{}
	var errs field.ErrorList
	if s != nil {
		if errs = validate.ServiceAddresses(s); len(errs) == 0 {
			errs = r.unfit(s, was)
		}
		if len(errs) == 0 {
			errs = append(errs, r.takeIPs(op, res, s, was)...)
			errs = append(errs, r.takePorts(op, res, s, was)...)
		}
	}
	if len(errs) > 0 {
		res.done(false)
		if errs[0].Type == field.ErrorTypeInternal {
			return nil, apierrors.NewInternalError(errs[0])
		}
		return nil, apierrors.NewInvalid(schema.GroupKind{Kind: "Service"}, s.Name, errs)
	}
	if was != nil {
		r.freeIPs(op, res, s, was)
		r.freePorts(op, res, s, was)
	}
	return res.done, nil
}
