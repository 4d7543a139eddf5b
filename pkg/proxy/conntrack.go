package proxy

import (
	"maps"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/sextant-k8s/sextant/pkg/proxy/desired"
)

// stale matches UDP flows that follow tables which no longer hold. UDP has no end of its own: a client that keeps its port
// would be sent to a dead endpoint for as long as it talks.
type stale struct {
	ends     map[netip.AddrPort]map[netip.AddrPort]bool // endpoints gone, by the address clients used
	unserved map[netip.AddrPort]bool                    // addresses that had no endpoint and have one now
	ports    map[uint16]map[netip.AddrPort]bool         // likewise by node port
	opened   map[uint16]bool
	families [2]bool
}

// staleFlows reads what changed.
func staleFlows(changes []desired.Change) *stale {
	s := &stale{ends: map[netip.AddrPort]map[netip.AddrPort]bool{}, unserved: map[netip.AddrPort]bool{}, ports: map[uint16]map[netip.AddrPort]bool{}, opened: map[uint16]bool{}}
	for _, c := range changes {
		s.compare(c)
	}
	return s
}

func (s *stale) compare(c desired.Change) {
	s.keep(c.After) // one that went in an earlier change, and is back
	for i := range c.Before {
		p := &c.Before[i]
		if p.Protocol != "udp" {
			continue
		}
		left := map[netip.AddrPort]bool{}
		if q := find(c.After, p); q != nil {
			for _, e := range q.Any {
				left[e.At] = true
			}
		}
		gone := map[netip.AddrPort]bool{}
		for _, e := range p.Any {
			if !left[e.At] {
				gone[e.At] = true
			}
		}
		if len(gone) == 0 {
			continue
		}
		s.families[desired.Family(p.V6())] = true
		for _, at := range fronts(p) {
			if s.ends[at] == nil {
				s.ends[at] = map[netip.AddrPort]bool{}
			}
			maps.Copy(s.ends[at], gone)
		}
		if p.NodePort > 0 {
			if s.ports[p.NodePort] == nil {
				s.ports[p.NodePort] = map[netip.AddrPort]bool{}
			}
			maps.Copy(s.ports[p.NodePort], gone)
		}
	}
	for i := range c.After {
		p := &c.After[i]
		if p.Protocol != "udp" {
			continue
		}
		if q := find(c.Before, p); len(p.Any) == 0 || q != nil && len(q.Any) > 0 {
			continue
		}
		s.families[desired.Family(p.V6())] = true
		for _, at := range fronts(p) {
			s.unserved[at] = true
		}
		if p.NodePort > 0 {
			s.opened[p.NodePort] = true
		}
	}
}

// keep takes out the endpoints of ports.
func (s *stale) keep(ports []desired.Port) {
	for i := range ports {
		p := &ports[i]
		if p.Protocol != "udp" {
			continue
		}
		for _, e := range p.Any {
			for _, at := range fronts(p) {
				delete(s.ends[at], e.At)
			}
			delete(s.ports[p.NodePort], e.At)
		}
	}
}

func find(in []desired.Port, like *desired.Port) *desired.Port {
	for i := range in {
		if p := &in[i]; p.Name == like.Name && p.Protocol == like.Protocol && p.V6() == like.V6() {
			return p
		}
	}
	return nil
}

// fronts answers the addresses at which clients reach a port.
func fronts(p *desired.Port) []netip.AddrPort {
	out := []netip.AddrPort{netip.AddrPortFrom(p.ClusterIP, p.Number)}
	for _, a := range p.ExternalIPs {
		out = append(out, netip.AddrPortFrom(a, p.Number))
	}
	for _, a := range p.Balancers {
		out = append(out, netip.AddrPortFrom(a, p.Number))
	}
	return out
}

func (s *stale) matches(f flow) bool {
	if f.protocol != unix.IPPROTO_UDP {
		return false
	}
	return s.ends[f.to][f.end] || s.ports[f.to.Port()][f.end] || f.end.Addr() == f.to.Addr() && (s.unserved[f.to] || s.opened[f.to.Port()])
}

// strays match flows to Services that the tables would lead elsewhere: of UDP, those that no endpoint ends, for a proxy that died between writing the
// tables and forgetting flows left them; of the others, those that no endpoint was found for. These are from before there were rules, and a client
// that gets its port again would follow them to nowhere.
type strays struct {
	ends     map[at]map[netip.AddrPort]bool // endpoints, by the address clients use
	ports    map[at]map[netip.AddrPort]bool // likewise by node port, without address
	families map[uint8][2]bool              // where there is anything to look for, by protocol
}

// at is an address, port and protocol.
type at struct {
	netip.AddrPort
	protocol uint8
}

var protocols = map[string]uint8{"tcp": unix.IPPROTO_TCP, "udp": unix.IPPROTO_UDP, "sctp": unix.IPPROTO_SCTP}

// strayFlows reads what should be; only of UDP where others do not show in the kernel's flows where they are led. Services without endpoints are
// left out: who talks to them meets a refusal, or endpoints that come.
func strayFlows(t *desired.Table, onlyUDP bool) *strays {
	s := &strays{ends: map[at]map[netip.AddrPort]bool{}, ports: map[at]map[netip.AddrPort]bool{}, families: map[uint8][2]bool{}}
	for all := range t.Each() {
		for i := range all {
			p := &all[i]
			if onlyUDP && p.Protocol != "udp" || len(p.Any) == 0 {
				continue
			}
			there := s.families[protocols[p.Protocol]]
			there[desired.Family(p.V6())] = true
			s.families[protocols[p.Protocol]] = there
			var ends map[netip.AddrPort]bool
			if p.Protocol == "udp" {
				ends = map[netip.AddrPort]bool{}
				for _, e := range slices.Concat(p.Any, p.Inner, p.Outer) {
					ends[e.At] = true
				}
			}
			for _, front := range fronts(p) {
				s.ends[at{front, protocols[p.Protocol]}] = ends
			}
			if port := (at{netip.AddrPortFrom(netip.Addr{}, p.NodePort), protocols[p.Protocol]}); p.NodePort > 0 && ends != nil {
				if s.ports[port] == nil {
					s.ports[port] = map[netip.AddrPort]bool{}
				}
				maps.Copy(s.ports[port], ends)
			}
		}
	}
	return s
}

func (s *strays) matches(f flow) bool {
	to := at{f.to, f.protocol}
	if ends, ours := s.ends[to]; ours {
		if to.protocol != unix.IPPROTO_UDP {
			// Whoever is connected keeps that.
			return f.end == f.to && f.connecting
		}
		return !ends[f.end]
	}
	// What was led nowhere else is somebody's own, on a port that happens to be the same.
	ends := s.ports[at{netip.AddrPortFrom(netip.Addr{}, to.Port()), to.protocol}]
	return ends != nil && f.end.Addr() != to.Addr() && !ends[f.end]
}

// keep puts in the endpoints of ports.
func (s *strays) keep(ports []desired.Port) {
	for i := range ports {
		p := &ports[i]
		if p.Protocol != "udp" {
			continue
		}
		for _, e := range slices.Concat(p.Any, p.Inner, p.Outer) {
			for _, front := range fronts(p) {
				if ends := s.ends[at{front, unix.IPPROTO_UDP}]; ends != nil {
					ends[e.At] = true
				}
			}
			if ends := s.ports[at{netip.AddrPortFrom(netip.Addr{}, p.NodePort), unix.IPPROTO_UDP}]; ends != nil {
				ends[e.At] = true
			}
		}
	}
}
