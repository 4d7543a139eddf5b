// Package ipvs holds the kernel's IPVS to a desired.Table.
//
// A virtual server stands at every address and port by which clients reach a Service; its real servers are the endpoints. The addresses are
// bound to a device of ours, so that packets to them come to IPVS. A line carries many requests to the kernel in one message. What IPVS lacks (marks, masquerading, refusals, guarded balancers)
// package nftables holds beside it. decide is pure; Backend compares and writes. One goroutine calls a Backend.
package ipvs

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/sextant-k8s/sextant/pkg/proxy/desired"
)

// front is where a virtual server stands.
type front struct {
	protocol string
	at       netip.AddrPort
}

// server is a virtual server.
type server struct {
	sticky int32 // seconds that a client stays
	real   []netip.AddrPort
}

// plan is virtual servers.
type plan map[front]server

// decide works out the virtual servers of ports; node ports stand at each of the node's addresses. A front that two ports claim is the first's.
func decide(ports func(func(*desired.Port) bool), node []netip.Addr) plan {
	out := plan{}
	for p := range ports {
		add := func(ip netip.Addr, number uint16, to []desired.Endpoint) {
			f := front{p.Protocol, netip.AddrPortFrom(ip, number)}
			if _, taken := out[f]; taken || len(to) == 0 {
				return
			}
			s := server{sticky: p.Sticky}
			for _, e := range to {
				s.real = append(s.real, e.At)
			}
			slices.SortFunc(s.real, netip.AddrPort.Compare)
			out[f] = s
		}
		add(p.ClusterIP, p.Number, p.Inner)
		for _, ip := range slices.Concat(p.ExternalIPs, p.Balancers) {
			add(ip, p.Number, p.Outer)
		}
		if p.NodePort > 0 {
			for _, ip := range node {
				if ip.Is6() == p.V6() {
					add(ip, p.NodePort, p.Outer)
				}
			}
		}
	}
	return out
}

// bound are the addresses that must be bound for a Service's ports.
func bound(ports []desired.Port) map[netip.Addr]bool {
	out := map[netip.Addr]bool{}
	for i := range ports {
		p := &ports[i]
		out[p.ClusterIP] = true
		for _, ip := range slices.Concat(p.ExternalIPs, p.Balancers) {
			out[ip] = true
		}
	}
	return out
}

// String prints the plan as ipvsadm does, near enough.
func (p plan) String() string {
	var b strings.Builder
	var fronts []front
	for f := range p {
		fronts = append(fronts, f)
	}
	slices.SortFunc(fronts, func(a, b front) int { return cmp.Or(strings.Compare(a.protocol, b.protocol), a.at.Compare(b.at)) })
	for _, f := range fronts {
		s := p[f]
		fmt.Fprintf(&b, "%s %v", f.protocol, f.at)
		if s.sticky > 0 {
			fmt.Fprintf(&b, " persistent %d", s.sticky)
		}
		b.WriteByte('\n')
		for _, r := range s.real {
			fmt.Fprintf(&b, "  -> %v masq\n", r)
		}
	}
	return b.String()
}

// Print answers a table's virtual servers for both families, on a node with these addresses.
func Print(t *desired.Table, node ...netip.Addr) string {
	return decide(t.All(false), node).String() + decide(t.All(true), node).String()
}
