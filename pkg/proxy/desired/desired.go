// Package desired says what a node's service tables should hold, from Services and EndpointSlices alone.
//
// NewService and NewSlice keep of the API's objects what matters here; Decide, pure, makes of one Service and its slices that
// Service's ports; a Table holds the ports of all, and answers what a Service's new ports change. Back ends turn ports into their
// kernel's words and know nothing of the API. Services, slices and ports never change once made; a Table belongs to one goroutine.
package desired

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Endpoint is where a service port's traffic may end.
type Endpoint struct {
	At    netip.AddrPort
	Local bool // on this node
}

// Port is one port of a Service in one address family, with everything that leads to it.
type Port struct {
	Name        string // namespace/name:port, or namespace/name where the port has no name
	Protocol    string // tcp, udp or sctp
	ClusterIP   netip.Addr
	Number      uint16
	NodePort    uint16
	ExternalIPs []netip.Addr   // of the spec
	Balancers   []netip.Addr   // of the status, where the balancer hands traffic to the node with its own address
	Ranges      []netip.Prefix // sources allowed to reach the balancers, if Guarded
	Guarded     bool           // only Ranges reach the balancers
	Sticky      int32          // seconds of client affinity; 0 for none
	// Inner and Outer serve traffic from inside and from outside; they differ by the traffic policies. Any serves whom no policy binds.
	Inner, Outer, Any []Endpoint
	InnerLocal        bool // the internal policy keeps traffic on the node
	OuterLocal        bool // the external policy keeps traffic on the node, and the client's address
}

// V6 says which family the port belongs to.
func (p *Port) V6() bool { return p.ClusterIP.Is6() }

// String prints the port in one line.
func (p *Port) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s/%s %v", p.Name, p.Protocol, netip.AddrPortFrom(p.ClusterIP, p.Number))
	if p.NodePort > 0 {
		fmt.Fprintf(&b, " node:%d", p.NodePort)
	}
	for _, ip := range slices.Concat(p.ExternalIPs, p.Balancers) {
		fmt.Fprintf(&b, " outside:%v", ip)
	}
	if p.Guarded {
		fmt.Fprintf(&b, " from:%v", p.Ranges)
	}
	if p.Sticky > 0 {
		fmt.Fprintf(&b, " sticky:%ds", p.Sticky)
	}
	fmt.Fprintf(&b, " ->%s", list(p.Inner))
	if p.OuterLocal {
		fmt.Fprintf(&b, " outer local ->%s", list(p.Outer))
	}
	return b.String()
}

func list(endpoints []Endpoint) string {
	if len(endpoints) == 0 {
		return " none"
	}
	var b strings.Builder
	for _, e := range endpoints {
		fmt.Fprintf(&b, " %v", e.At)
	}
	return b.String()
}

func (p *Port) equal(q *Port) bool {
	return p.Name == q.Name && p.Protocol == q.Protocol && p.ClusterIP == q.ClusterIP && p.Number == q.Number && p.NodePort == q.NodePort &&
		p.Guarded == q.Guarded && p.Sticky == q.Sticky && p.InnerLocal == q.InnerLocal && p.OuterLocal == q.OuterLocal &&
		slices.Equal(p.ExternalIPs, q.ExternalIPs) && slices.Equal(p.Balancers, q.Balancers) && slices.Equal(p.Ranges, q.Ranges) &&
		slices.Equal(p.Inner, q.Inner) && slices.Equal(p.Outer, q.Outer) && slices.Equal(p.Any, q.Any)
}

// Policy is how every back end makes rules.
type Policy struct {
	Pods          [2]netip.Prefix // all pods' addresses, IPv4 and IPv6; what leaves them is masqueraded where NodePods is set
	NodePods      [2]netip.Prefix // this node's pods where joining them is ours to do; zero where it is not
	Inside        [2]netip.Prefix // traffic to cluster IPs from elsewhere is masqueraded; zero: nothing is known to be inside
	InsideLink    string          // the same by the interface that traffic comes in by, where set; a "+" at the end stands for any letters
	MasqueradeAll bool            // masquerade all traffic to cluster IPs
	DropInvalid   bool            // packets outside of their connection's window are not forwarded, in iptables
	MasqueradeBit int32           // of the packet's mark, 0 to 31
	NodePortsOn   []netip.Prefix  // the local addresses that answer node ports
	NodePortsAll  bool            // every local address does
}

// Equal says that rules would come out the same.
func (p Policy) Equal(q Policy) bool {
	return p.Pods == q.Pods && p.NodePods == q.NodePods && p.Inside == q.Inside && p.InsideLink == q.InsideLink &&
		p.MasqueradeAll == q.MasqueradeAll && p.DropInvalid == q.DropInvalid && p.MasqueradeBit == q.MasqueradeBit && p.NodePortsAll == q.NodePortsAll && slices.Equal(p.NodePortsOn, q.NodePortsOn)
}

// Mark is the bit as a number.
func (p Policy) Mark() uint32 { return 1 << p.MasqueradeBit }

// Place is a table of the kernel's.
type Place struct {
	V6    bool
	Table string
}

// Written is what a Sync did.
type Written struct {
	Held   map[Place]int // rules and elements that the kernel holds of ours
	Last   map[Place]int // those that this Sync wrote, where that is known
	Mended [2]int        // by family: writes of changes that failed, and were followed by one of everything
}

// Sum is how many rules and elements are held in all.
func (w Written) Sum() int {
	n := 0
	for _, held := range w.Held {
		n += held
	}
	return n
}

// Family answers the index of a pair's half.
func Family(v6 bool) int {
	if v6 {
		return 1
	}
	return 0
}
