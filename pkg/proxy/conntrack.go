package proxy

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sextant-k8s/sextant/pkg/proxy/desired"
)

// stale matches UDP flows that follow tables which no longer hold. UDP has no end of its own: a client that keeps its port
// would be sent to a dead endpoint for as long as it talks.
type stale struct {
	ends     map[netip.AddrPort]map[netip.Addr]bool // endpoints gone, by the address clients used
	unserved map[netip.AddrPort]bool                // addresses that had no endpoint and have one now
	ports    map[uint16]map[netip.Addr]bool         // likewise by node port
	opened   map[uint16]bool
	families [2]bool
}

// staleFlows reads what changed.
func staleFlows(changes []desired.Change) *stale {
	s := &stale{ends: map[netip.AddrPort]map[netip.Addr]bool{}, unserved: map[netip.AddrPort]bool{}, ports: map[uint16]map[netip.Addr]bool{}, opened: map[uint16]bool{}}
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
		left := map[netip.Addr]bool{}
		if q := find(c.After, p); q != nil {
			for _, e := range q.Any {
				left[e.At.Addr()] = true
			}
		}
		gone := map[netip.Addr]bool{}
		for _, e := range p.Any {
			if !left[e.At.Addr()] {
				gone[e.At.Addr()] = true
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
				s.ports[p.NodePort] = map[netip.Addr]bool{}
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
	to, end := addr(f.Forward.DstIP), addr(f.Reverse.SrcIP)
	at := netip.AddrPortFrom(to, f.Forward.DstPort)
	return s.ends[at][end] || s.unserved[at] || s.ports[f.Forward.DstPort][end] || s.opened[f.Forward.DstPort] && end == to
}

func addr(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip) // an address that is none matches nothing
	return a.Unmap()
}

// forget deletes the flows from the kernel, and answers how many there were.
func (s *stale) forget() (uint, error) {
	var total uint
	var errs []error
	for f, family := range []netlink.InetFamily{unix.AF_INET, unix.AF_INET6} {
		if !s.families[f] {
			continue
		}
		n, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, family, s)
		total += n
		if err != nil {
			errs = append(errs, fmt.Errorf("delete stale UDP flows: %w", err))
		}
	}
	return total, errors.Join(errs...)
}
