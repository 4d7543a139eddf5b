package proxy

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
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
			s.ends[at] = gone
		}
		if p.NodePort > 0 {
			if s.ports[p.NodePort] == nil {
				s.ports[p.NodePort] = map[netip.AddrPort]bool{}
			}
			for a := range gone {
				s.ports[p.NodePort][a] = true
			}
		}
	}
	for i := range c.After {
		p := &c.After[i]
		if q := find(c.Before, p); p.Protocol != "udp" || len(p.Any) == 0 || q != nil && len(q.Any) > 0 {
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

// MatchConntrackFlow says whether the flow must go.
func (s *stale) MatchConntrackFlow(f *netlink.ConntrackFlow) bool {
	if f.Forward.Protocol != unix.IPPROTO_UDP {
		return false
	}
	to, end := addr(f.Forward.DstIP), netip.AddrPortFrom(addr(f.Reverse.SrcIP), f.Reverse.SrcPort)
	at := netip.AddrPortFrom(to, f.Forward.DstPort)
	return s.ends[at][end] || s.unserved[at] || s.ports[f.Forward.DstPort][end] || s.opened[f.Forward.DstPort] && end.Addr() == to
}

func addr(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip) // an address that is none matches nothing
	return a.Unmap()
}

// strays match flows to Services that the tables would lead elsewhere: of UDP, those that no endpoint ends, for a proxy that died between writing the
// tables and forgetting flows left them; of the others, those that no endpoint was found for. These are from before there were rules, and a client
// that gets its port again would follow them to nowhere.
type strays struct {
	ends     map[at]map[netip.AddrPort]bool // endpoints, by the address clients use
	ports    map[at]map[netip.AddrPort]bool // likewise by node port, without address
	families [2]bool
}

// established is the number of TCP's state from which on both ends have spoken.
const established = 3

// at is an address, port and protocol.
type at struct {
	netip.AddrPort
	protocol uint8
}

var protocols = map[string]uint8{"tcp": unix.IPPROTO_TCP, "udp": unix.IPPROTO_UDP, "sctp": unix.IPPROTO_SCTP}

// strayFlows reads what should be; only of UDP where others do not show in the kernel's flows where they are led. Services without endpoints are
// left out: who talks to them meets a refusal, or endpoints that come.
func strayFlows(t *desired.Table, onlyUDP bool) *strays {
	s := &strays{ends: map[at]map[netip.AddrPort]bool{}, ports: map[at]map[netip.AddrPort]bool{}}
	for all := range t.Each() {
		for i := range all {
			p := &all[i]
			if onlyUDP && p.Protocol != "udp" || len(p.Any) == 0 {
				continue
			}
			s.families[desired.Family(p.V6())] = true
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

// MatchConntrackFlow says whether the flow must go.
func (s *strays) MatchConntrackFlow(f *netlink.ConntrackFlow) bool {
	to := at{netip.AddrPortFrom(addr(f.Forward.DstIP), f.Forward.DstPort), f.Forward.Protocol}
	end := netip.AddrPortFrom(addr(f.Reverse.SrcIP), f.Reverse.SrcPort)
	if ends, ours := s.ends[to]; ours {
		if to.protocol != unix.IPPROTO_UDP {
			// Whoever is connected keeps that.
			tcp, ok := f.ProtoInfo.(*netlink.ProtoInfoTCP)
			return end == to.AddrPort && ok && tcp.State < established
		}
		return !ends[end]
	}
	// What was led nowhere else is somebody's own, on a port that happens to be the same.
	ends := s.ports[at{netip.AddrPortFrom(netip.Addr{}, to.Port()), to.protocol}]
	return ends != nil && end.Addr() != to.Addr() && !ends[end]
}

func (s *stale) of() [2]bool  { return s.families }
func (s *strays) of() [2]bool { return s.families }

// flows are some of the kernel's, in those families.
type flows interface {
	netlink.CustomConntrackFilter
	of() [2]bool
}

// forget deletes flows from the kernel, and answers how many there were.
func forget(which flows) (uint, error) {
	var total uint
	var errs []error
	for f, family := range []netlink.InetFamily{unix.AF_INET, unix.AF_INET6} {
		if !which.of()[f] {
			continue
		}
		n, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, family, which)
		total += n
		if err != nil {
			errs = append(errs, fmt.Errorf("delete stale flows: %w", err))
		}
	}
	return total, errors.Join(errs...)
}
