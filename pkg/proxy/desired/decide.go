// Package desired says what a node's service tables should hold, from Services and EndpointSlices alone.
//
// Decide is pure; a Table prints itself. Back ends turn a Table into their kernel's words and know nothing of the API.
package desired

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// Endpoint is where a service port's traffic may end.
type Endpoint struct {
	IP    string
	Port  int32
	Local bool // on this node
}

// Port is one port of a Service with everything that leads to it (IPv4).
type Port struct {
	Name        string // namespace/name:port, or namespace/name where the port has no name
	Protocol    string // tcp, udp or sctp
	ClusterIP   string
	Number      int32
	NodePort    int32
	ExternalIPs []string // of the spec
	Balancers   []string // of the status, where the balancer hands traffic to the node with its own address
	Ranges      []string // sources allowed to reach the balancers; empty is all
	Sticky      int32    // seconds of client affinity; 0 for none
	// Inner and Outer serve traffic from inside and from outside; they differ by the traffic policies.
	Inner, Outer []Endpoint
	OuterLocal   bool // the external policy keeps traffic on the node, and the client's address
	Any          []Endpoint
}

// Table is every service port of a node, ordered by name and protocol.
type Table struct{ Ports []Port }

// String prints the table, one line a port.
func (t Table) String() string {
	var b strings.Builder
	for _, p := range t.Ports {
		fmt.Fprintf(&b, "%s/%s %s:%d", p.Name, p.Protocol, p.ClusterIP, p.Number)
		if p.NodePort > 0 {
			fmt.Fprintf(&b, " node:%d", p.NodePort)
		}
		for _, ip := range slices.Concat(p.ExternalIPs, p.Balancers) {
			fmt.Fprintf(&b, " outside:%s", ip)
		}
		if p.Sticky > 0 {
			fmt.Fprintf(&b, " sticky:%ds", p.Sticky)
		}
		fmt.Fprintf(&b, " ->%s", list(p.Inner))
		if p.OuterLocal {
			fmt.Fprintf(&b, " outer local ->%s", list(p.Outer))
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func list(endpoints []Endpoint) string {
	if len(endpoints) == 0 {
		return " none"
	}
	var b strings.Builder
	for _, e := range endpoints {
		fmt.Fprintf(&b, " %s:%d", e.IP, e.Port)
	}
	return b.String()
}

// Snapshot is what a decision depends on.
type Snapshot struct {
	Node     string
	Services []*v1.Service
	Slices   []*discoveryv1.EndpointSlice
}

// Decide works out the table.
func Decide(s Snapshot) Table {
	bySvc := map[string][]*discoveryv1.EndpointSlice{}
	for _, slice := range s.Slices {
		if name := slice.Labels[discoveryv1.LabelServiceName]; name != "" && slice.AddressType == discoveryv1.AddressTypeIPv4 {
			key := slice.Namespace + "/" + name
			bySvc[key] = append(bySvc[key], slice)
		}
	}
	var t Table
	for _, svc := range s.Services {
		ip := clusterIP(svc)
		if ip == "" {
			continue
		}
		for i := range svc.Spec.Ports {
			t.Ports = append(t.Ports, port(svc, &svc.Spec.Ports[i], ip, bySvc[svc.Namespace+"/"+svc.Name], s.Node))
		}
	}
	slices.SortFunc(t.Ports, func(a, b Port) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.Protocol, b.Protocol))
	})
	return t
}

// clusterIP answers the Service's IPv4 cluster address; empty for headless and external names.
func clusterIP(svc *v1.Service) string {
	if svc.Spec.Type == v1.ServiceTypeExternalName {
		return ""
	}
	for _, ip := range append([]string{svc.Spec.ClusterIP}, svc.Spec.ClusterIPs...) {
		if isV4(ip) {
			return ip
		}
	}
	return ""
}

func isV4(ip string) bool {
	a, err := netip.ParseAddr(ip)
	return err == nil && a.Is4()
}

func port(svc *v1.Service, sp *v1.ServicePort, ip string, from []*discoveryv1.EndpointSlice, node string) Port {
	p := Port{Name: svc.Namespace + "/" + svc.Name, Protocol: "tcp", ClusterIP: ip, Number: sp.Port, NodePort: sp.NodePort}
	if sp.Name != "" {
		p.Name += ":" + sp.Name
	}
	if sp.Protocol != "" {
		p.Protocol = strings.ToLower(string(sp.Protocol))
	}
	for _, e := range svc.Spec.ExternalIPs {
		if isV4(e) {
			p.ExternalIPs = append(p.ExternalIPs, e)
		}
	}
	if svc.Spec.Type == v1.ServiceTypeLoadBalancer {
		for _, in := range svc.Status.LoadBalancer.Ingress {
			if isV4(in.IP) && (in.IPMode == nil || *in.IPMode == v1.LoadBalancerIPModeVIP) {
				p.Balancers = append(p.Balancers, in.IP)
			}
		}
		for _, r := range svc.Spec.LoadBalancerSourceRanges {
			if prefix, err := netip.ParsePrefix(strings.TrimSpace(r)); err == nil && prefix.Addr().Is4() {
				p.Ranges = append(p.Ranges, prefix.Masked().String())
			}
		}
	}
	if svc.Spec.SessionAffinity == v1.ServiceAffinityClientIP {
		p.Sticky = v1.DefaultClientIPServiceAffinitySeconds
		if c := svc.Spec.SessionAffinityConfig; c != nil && c.ClientIP != nil && c.ClientIP.TimeoutSeconds != nil {
			p.Sticky = *c.ClientIP.TimeoutSeconds
		}
	}
	all, local := endpoints(sp, from, node)
	p.Inner, p.Outer, p.Any = all, all, all
	if svc.Spec.InternalTrafficPolicy != nil && *svc.Spec.InternalTrafficPolicy == v1.ServiceInternalTrafficPolicyLocal {
		p.Inner = local
	}
	if svc.Spec.ExternalTrafficPolicy == v1.ServiceExternalTrafficPolicyLocal {
		p.Outer, p.OuterLocal = local, true
	}
	return p
}

// endpoints answers the endpoints that take traffic, all and this node's. Ready ones do; where there are none, those that still
// serve while they terminate.
func endpoints(sp *v1.ServicePort, from []*discoveryv1.EndpointSlice, node string) (all, local []Endpoint) {
	var ready, leaving []Endpoint
	seen := map[Endpoint]bool{}
	for _, slice := range from {
		number := int32(0)
		for _, ep := range slice.Ports {
			if ep.Port != nil && (ep.Name == nil && sp.Name == "" || ep.Name != nil && *ep.Name == sp.Name) &&
				(ep.Protocol == nil || sp.Protocol == "" || *ep.Protocol == sp.Protocol) {
				number = *ep.Port
			}
		}
		if number == 0 {
			continue
		}
		for i := range slice.Endpoints {
			e := &slice.Endpoints[i]
			if len(e.Addresses) == 0 || !isV4(e.Addresses[0]) {
				continue
			}
			end := Endpoint{IP: e.Addresses[0], Port: number, Local: e.NodeName != nil && *e.NodeName == node}
			if seen[end] {
				continue
			}
			seen[end] = true
			is := func(b *bool, unknown bool) bool {
				if b == nil {
					return unknown
				}
				return *b
			}
			switch {
			case is(e.Conditions.Ready, true):
				ready = append(ready, end)
			case is(e.Conditions.Serving, false) && is(e.Conditions.Terminating, false):
				leaving = append(leaving, end)
			}
		}
	}
	return prefer(ready, leaving), prefer(here(ready), here(leaving))
}

func here(from []Endpoint) (out []Endpoint) {
	for _, e := range from {
		if e.Local {
			out = append(out, e)
		}
	}
	return out
}

func prefer(first, second []Endpoint) []Endpoint {
	if len(first) == 0 {
		first = second
	}
	slices.SortFunc(first, func(a, b Endpoint) int {
		return cmp.Or(strings.Compare(a.IP, b.IP), cmp.Compare(a.Port, b.Port))
	})
	return first
}
