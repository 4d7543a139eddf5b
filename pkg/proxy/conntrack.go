package proxy

import (
	"fmt"
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
}

// staleFlows compares two tables.
func staleFlows(before, after desired.Table) *stale {
	s := &stale{ends: map[netip.AddrPort]map[netip.Addr]bool{}, unserved: map[netip.AddrPort]bool{}, ports: map[uint16]map[netip.Addr]bool{}, opened: map[uint16]bool{}}
	now := map[string]desired.Port{}
	for _, p := range after.Ports {
		if p.Protocol == "udp" {
			now[p.Name] = p
		}
	}
	was := map[string]bool{}
	for _, p := range before.Ports {
		if p.Protocol != "udp" {
			continue
		}
		was[p.Name] = len(p.Any) > 0
		left := map[string]bool{}
		for _, e := range now[p.Name].Any {
			left[e.IP] = true
		}
		gone := map[netip.Addr]bool{}
		for _, e := range p.Any {
			if a, err := netip.ParseAddr(e.IP); err == nil && !left[e.IP] {
				gone[a] = true
			}
		}
		if len(gone) == 0 {
			continue
		}
		for _, at := range fronts(p) {
			s.ends[at] = gone
		}
		if p.NodePort > 0 {
			s.ports[uint16(p.NodePort)] = gone
		}
	}
	for name, p := range now {
		if len(p.Any) == 0 || was[name] {
			continue
		}
		for _, at := range fronts(p) {
			s.unserved[at] = true
		}
		if p.NodePort > 0 {
			s.opened[uint16(p.NodePort)] = true
		}
	}
	return s
}

// fronts answers the addresses at which clients reach a port.
func fronts(p desired.Port) []netip.AddrPort {
	var out []netip.AddrPort
	for _, ip := range append(append([]string{p.ClusterIP}, p.ExternalIPs...), p.Balancers...) {
		if a, err := netip.ParseAddr(ip); err == nil {
			out = append(out, netip.AddrPortFrom(a, uint16(p.Number)))
		}
	}
	return out
}

func (s *stale) empty() bool { return len(s.ends)+len(s.unserved)+len(s.ports)+len(s.opened) == 0 }

// MatchConntrackFlow says whether the flow must go.
func (s *stale) MatchConntrackFlow(f *netlink.ConntrackFlow) bool {
	if f.Forward.Protocol != unix.IPPROTO_UDP {
		return false
	}
	to, ok := netip.AddrFromSlice(f.Forward.DstIP.To4())
	if !ok {
		return false
	}
	end, _ := netip.AddrFromSlice(f.Reverse.SrcIP.To4())
	at := netip.AddrPortFrom(to, f.Forward.DstPort)
	return s.ends[at][end] || s.unserved[at] || s.ports[f.Forward.DstPort][end] || s.opened[f.Forward.DstPort] && end == to
}

// forget deletes the flows from the kernel.
func (s *stale) forget() error {
	if s.empty() {
		return nil
	}
	if _, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, unix.AF_INET, s); err != nil {
		return fmt.Errorf("delete stale UDP flows: %w", err)
	}
	return nil
}
