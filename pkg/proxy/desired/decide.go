package desired

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
)

// Decide works out one Service's ports from its slices, as a node in the zone sees them. The order of the slices does not matter.
func Decide(svc *Service, from []*Slice, zone string) []Port {
	if svc == nil {
		return nil
	}
	var out []Port
	for _, ip := range svc.ClusterIPs {
		for i := range svc.Ports {
			out = append(out, port(svc, &svc.Ports[i], ip, from, zone))
		}
	}
	slices.SortStableFunc(out, func(a, b Port) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.Protocol, b.Protocol))
	})
	return out
}

func port(svc *Service, sp *ServicePort, ip netip.Addr, from []*Slice, zone string) Port {
	p := Port{Name: svc.Key, Protocol: sp.Protocol, ClusterIP: ip, Number: sp.Number, NodePort: sp.NodePort, Sticky: svc.Sticky,
		InnerLocal: svc.InternalLocal, OuterLocal: svc.ExternalLocal,
		ExternalIPs: family(svc.ExternalIPs, ip.Is6()), Balancers: family(svc.Balancers, ip.Is6())}
	if sp.Name != "" {
		p.Name += ":" + sp.Name
	}
	if p.Guarded = svc.Guarded && len(p.Balancers) > 0; p.Guarded {
		for _, r := range svc.Ranges {
			if r.Addr().Is6() == ip.Is6() {
				p.Ranges = append(p.Ranges, r)
			}
		}
	}
	all := gather(sp, from, ip.Is6())
	everyone := all.near(zone)
	p.Any = everyone.serving()
	p.Inner, p.Outer = p.Any, p.Any
	if svc.InternalLocal || svc.ExternalLocal {
		local := all.local().serving()
		if svc.InternalLocal {
			p.Inner = local
		}
		if svc.ExternalLocal {
			p.Outer = local
		}
	}
	return p
}

func family(from []netip.Addr, v6 bool) []netip.Addr {
	if !slices.ContainsFunc(from, func(a netip.Addr) bool { return a.Is6() != v6 }) {
		return from
	}
	var out []netip.Addr
	for _, a := range from {
		if a.Is6() == v6 {
			out = append(out, a)
		}
	}
	return out
}

// candidate is an endpoint that may take a port's traffic.
type candidate struct {
	Endpoint
	of *Backend
}

type candidates []candidate

// gather collects the candidates of a port. One address is counted once, though two slices may hold it while the controller moves it:
// it is ready if either says so.
func gather(sp *ServicePort, from []*Slice, v6 bool) candidates {
	n := 0
	for _, s := range from {
		n += len(s.Backends)
	}
	out := make(candidates, 0, n)
	for _, s := range from {
		if s.V6 != v6 {
			continue
		}
		for _, port := range s.Ports {
			if port.Name != sp.Name || port.Protocol != sp.Protocol || port.Number == 0 {
				continue
			}
			for i := range s.Backends {
				b := &s.Backends[i]
				out = append(out, candidate{Endpoint{At: netip.AddrPortFrom(b.At, port.Number), Local: b.Local}, b})
			}
		}
	}
	slices.SortFunc(out, func(a, b candidate) int {
		if c := a.At.Compare(b.At); c != 0 || a.of.Ready == b.of.Ready {
			return c
		}
		if a.of.Ready {
			return -1
		}
		return 1
	})
	return slices.CompactFunc(out, func(a, b candidate) bool { return a.At == b.At })
}

func (c candidates) filter(keep func(*candidate) bool) candidates {
	var out candidates
	for i := range c {
		if keep(&c[i]) {
			out = append(out, c[i])
		}
	}
	return out
}

func (c candidates) local() candidates {
	return c.filter(func(e *candidate) bool { return e.Local })
}

// near keeps the endpoints hinted to this node, or else to its zone. Hints count only when every ready endpoint carries
// them and one is for us: otherwise the controller is still at work, and all must serve.
func (c candidates) near(zone string) candidates {
	ready, byNode, forNode, byZone, forZone := 0, 0, 0, 0, 0
	for i := range c {
		b := c[i].of
		if !b.Ready {
			continue
		}
		ready++
		if b.NodeHinted {
			byNode++
		}
		if b.ForNode {
			forNode++
		}
		if len(b.Zones) > 0 {
			byZone++
		}
		if slices.Contains(b.Zones, zone) {
			forZone++
		}
	}
	switch {
	case ready > 0 && byNode == ready && forNode > 0:
		return c.filter(func(e *candidate) bool { return e.of.ForNode })
	case ready > 0 && zone != "" && byZone == ready && forZone > 0:
		return c.filter(func(e *candidate) bool { return slices.Contains(e.of.Zones, zone) })
	}
	return c
}

// serving answers the ready ones; where there are none, those that still serve while they terminate.
func (c candidates) serving() []Endpoint {
	n := 0
	for i := range c {
		if c[i].of.Ready {
			n++
		}
	}
	wantReady := n > 0
	if !wantReady {
		n = len(c)
	}
	if n == 0 {
		return nil
	}
	out := make([]Endpoint, 0, n)
	for i := range c {
		if c[i].of.Ready == wantReady {
			out = append(out, c[i].Endpoint)
		}
	}
	return out
}

// ReadyHere counts a Service's ready endpoints on this node: what a balancer's health check asks for. Endpoints that are leaving
// do not count, so that the balancer turns away while they still serve.
func ReadyHere(from []*Slice) int {
	seen := map[netip.Addr]bool{}
	for _, s := range from {
		for i := range s.Backends {
			if b := &s.Backends[i]; b.Local && b.Ready {
				seen[b.At] = true
			}
		}
	}
	return len(seen)
}
