package desired

import (
	"net/netip"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// Service is what the tables need of a Service.
type Service struct {
	Key           string // namespace/name
	Version       string
	ClusterIPs    []netip.Addr // none for headless ones and external names
	ExternalIPs   []netip.Addr
	Balancers     []netip.Addr
	Ranges        []netip.Prefix
	Guarded       bool
	Ports         []ServicePort
	Sticky        int32
	InternalLocal bool
	ExternalLocal bool
	HealthPort    uint16 // where a balancer asks for local endpoints; 0 for nowhere
}

// ServicePort is a port of a Service.
type ServicePort struct {
	Name, Protocol   string
	Number, NodePort uint16
}

// NewService reads an API object. What is malformed in it is left out.
func NewService(svc *v1.Service) *Service {
	s := &Service{Key: svc.Namespace + "/" + svc.Name, Version: svc.ResourceVersion}
	if svc.Spec.Type == v1.ServiceTypeExternalName || svc.Spec.ClusterIP == v1.ClusterIPNone {
		return s
	}
	ips := svc.Spec.ClusterIPs
	if len(ips) == 0 {
		ips = []string{svc.Spec.ClusterIP}
	}
	s.ClusterIPs, s.ExternalIPs = addresses(ips), addresses(svc.Spec.ExternalIPs)
	if svc.Spec.Type == v1.ServiceTypeLoadBalancer {
		for _, in := range svc.Status.LoadBalancer.Ingress {
			if in.IPMode == nil || *in.IPMode == v1.LoadBalancerIPModeVIP {
				s.Balancers = append(s.Balancers, addresses([]string{in.IP})...)
			}
		}
		ranges := svc.Spec.LoadBalancerSourceRanges
		if a := strings.TrimSpace(svc.Annotations[v1.AnnotationLoadBalancerSourceRangesKey]); len(ranges) == 0 && a != "" {
			ranges = strings.Split(a, ",")
		}
		for _, r := range ranges {
			s.Guarded = true
			if p, err := netip.ParsePrefix(strings.TrimSpace(r)); err == nil {
				s.Ranges = append(s.Ranges, p.Masked())
			}
		}
	}
	if svc.Spec.SessionAffinity == v1.ServiceAffinityClientIP {
		s.Sticky = v1.DefaultClientIPServiceAffinitySeconds
		if c := svc.Spec.SessionAffinityConfig; c != nil && c.ClientIP != nil && c.ClientIP.TimeoutSeconds != nil {
			s.Sticky = *c.ClientIP.TimeoutSeconds
		}
	}
	s.InternalLocal = svc.Spec.InternalTrafficPolicy != nil && *svc.Spec.InternalTrafficPolicy == v1.ServiceInternalTrafficPolicyLocal
	s.ExternalLocal = svc.Spec.ExternalTrafficPolicy == v1.ServiceExternalTrafficPolicyLocal
	if s.ExternalLocal && svc.Spec.Type == v1.ServiceTypeLoadBalancer {
		s.HealthPort = uint16(svc.Spec.HealthCheckNodePort)
	}
	for i := range svc.Spec.Ports {
		p := &svc.Spec.Ports[i]
		s.Ports = append(s.Ports, ServicePort{Name: p.Name, Protocol: protocol(p.Protocol), Number: uint16(p.Port), NodePort: uint16(p.NodePort)})
	}
	return s
}

func addresses(from []string) (out []netip.Addr) {
	for _, s := range from {
		if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
			out = append(out, a.Unmap())
		}
	}
	return out
}

// protocol answers one of three constants, so that no cached object keeps a copy.
func protocol(p v1.Protocol) string {
	switch p {
	case v1.ProtocolUDP:
		return "udp"
	case v1.ProtocolSCTP:
		return "sctp"
	default:
		return "tcp"
	}
}

// Slice is what the tables need of an EndpointSlice.
type Slice struct {
	Key       string // namespace/name
	Service   string // namespace/name; empty where it belongs to none
	Version   string
	Triggered time.Time // the last change that it carries on, where it says so
	V6        bool
	Ports     []SlicePort
	Backends  []Backend
}

// SlicePort is a port of an EndpointSlice.
type SlicePort struct {
	Name, Protocol string
	Number         uint16
}

// Backend is an endpoint of an EndpointSlice.
type Backend struct {
	At                  netip.Addr
	Local               bool
	Ready, Leaving      bool     // takes traffic; takes it only while nobody is ready
	NodeHinted, ForNode bool     // hinted to nodes, to this one among them
	Zones               []string // hinted to zones
}

// NewSlice reads an API object as the named node sees it.
func NewSlice(slice *discoveryv1.EndpointSlice, node string) *Slice {
	s := &Slice{Key: slice.Namespace + "/" + slice.Name, Version: slice.ResourceVersion, V6: slice.AddressType == discoveryv1.AddressTypeIPv6}
	if name := slice.Labels[discoveryv1.LabelServiceName]; name != "" && slice.AddressType != discoveryv1.AddressTypeFQDN {
		s.Service = slice.Namespace + "/" + name
	}
	if at, err := time.Parse(time.RFC3339Nano, slice.Annotations[v1.EndpointsLastChangeTriggerTime]); err == nil {
		s.Triggered = at
	}
	for i := range slice.Ports {
		p := &slice.Ports[i]
		if p.Port == nil {
			continue
		}
		port := SlicePort{Number: uint16(*p.Port), Protocol: "tcp"}
		if p.Name != nil {
			port.Name = *p.Name
		}
		if p.Protocol != nil {
			port.Protocol = protocol(*p.Protocol)
		}
		s.Ports = append(s.Ports, port)
	}
	is := func(b *bool, unknown bool) bool {
		if b == nil {
			return unknown
		}
		return *b
	}
	s.Backends = make([]Backend, 0, len(slice.Endpoints))
	for i := range slice.Endpoints {
		e := &slice.Endpoints[i]
		at := addresses(e.Addresses[:min(1, len(e.Addresses))])
		if len(at) == 0 || at[0].Is6() != s.V6 {
			continue
		}
		b := Backend{At: at[0], Local: e.NodeName != nil && *e.NodeName == node, Ready: is(e.Conditions.Ready, true)}
		b.Leaving = !b.Ready && is(e.Conditions.Serving, true) && is(e.Conditions.Terminating, false)
		if !b.Ready && !b.Leaving {
			continue
		}
		if e.Hints != nil {
			for _, n := range e.Hints.ForNodes {
				b.NodeHinted, b.ForNode = true, b.ForNode || n.Name == node
			}
			for _, z := range e.Hints.ForZones {
				b.Zones = append(b.Zones, z.Name)
			}
		}
		s.Backends = append(s.Backends, b)
	}
	return s
}
