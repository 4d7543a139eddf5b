// Package podnet joins the pods of all nodes: routes to the other nodes' pod addresses, a VXLAN device where nodes share no
// link, and the CNI configuration of this node.
//
// decide says which routes there should be; Network holds the kernel and the file to it. One goroutine calls a Network.
package podnet

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
)

// The ways in which pods of different nodes meet.
const (
	HostGateway = "host-gw" // routes, where all nodes share a link
	VXLAN       = "vxlan"   // tunnels, UDP 4789
	None        = "none"    // a third party's CNI plugin
)

// Node is what the network and the health check need of a node.
type Node struct {
	Name, Zone string
	Pods       [2]netip.Prefix // IPv4 and IPv6; zero for none
	Addresses  [2]netip.Addr   // the first InternalIP of each family; zero for none
	Deleting   bool            // no new traffic may be sent to it
}

// NewNode reads an API object. What is malformed in it is left out.
func NewNode(o *v1.Node) *Node {
	n := &Node{Name: o.Name, Zone: o.Labels[v1.LabelTopologyZone], Deleting: o.DeletionTimestamp != nil}
	for _, t := range o.Spec.Taints {
		n.Deleting = n.Deleting || t.Key == "ToBeDeletedByClusterAutoscaler"
	}
	for _, s := range append([]string{o.Spec.PodCIDR}, o.Spec.PodCIDRs...) {
		if p, err := netip.ParsePrefix(s); err == nil && !n.Pods[half(p.Addr())].IsValid() {
			n.Pods[half(p.Addr())] = p.Masked()
		}
	}
	for _, a := range o.Status.Addresses {
		if at, err := netip.ParseAddr(a.Address); err == nil && a.Type == v1.NodeInternalIP && !n.Addresses[half(at)].IsValid() {
			n.Addresses[half(at)] = at
		}
	}
	return n
}

// half answers the index of an address's family in a pair.
func half(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}

// Equal says that nothing of it differs.
func (n *Node) Equal(o *Node) bool { return *n == *o }

// Route leads to the pods of one node.
type Route struct {
	Pods netip.Prefix
	Via  netip.Addr // the node itself, or its end of the tunnel
	Node string
}

// Peer is the other end of a tunnel.
type Peer struct {
	Node   string
	At     netip.Addr   // where tunnelled packets are sent
	Inside []netip.Addr // its addresses in the tunnel
}

// Plan is what this node's network should be.
type Plan struct {
	Pods   [2]netip.Prefix // this node's own; zero while it has none
	At     netip.Addr      // this node's end of tunnels; zero without tunnels
	Routes []Route
	Peers  []Peer
}

// String prints the plan.
func (p Plan) String() string {
	var b strings.Builder
	for _, pods := range p.Pods {
		if pods.IsValid() {
			fmt.Fprintf(&b, "pods %v\n", pods)
		}
	}
	if p.At.IsValid() {
		fmt.Fprintf(&b, "tunnels at %v\n", p.At)
	}
	for _, r := range p.Routes {
		fmt.Fprintf(&b, "%v via %v (%s)\n", r.Pods, r.Via, r.Node)
	}
	for _, r := range p.Peers {
		fmt.Fprintf(&b, "tunnel to %v as %v (%s)\n", r.At, r.Inside, r.Node)
	}
	return b.String()
}

// decide works out the plan of the named node.
func decide(name, mode string, nodes []*Node) Plan {
	var p Plan
	self := slices.IndexFunc(nodes, func(n *Node) bool { return n.Name == name })
	if self < 0 {
		return p
	}
	me := nodes[self]
	p.Pods = me.Pods
	// Tunnels run over IPv4 where this node has it.
	under := 0
	if !me.Addresses[0].IsValid() {
		under = 1
	}
	if mode == VXLAN {
		p.At = me.Addresses[under]
	}
	for _, n := range nodes {
		if n == me {
			continue
		}
		peer := Peer{Node: n.Name, At: n.Addresses[under]}
		for f, pods := range n.Pods {
			via := n.Addresses[f]
			if mode == VXLAN {
				// The first address of a range belongs to no pod: it is the node's in the tunnel.
				via = pods.Addr()
			}
			if !pods.IsValid() || !via.IsValid() || mode == VXLAN && !peer.At.IsValid() {
				continue
			}
			p.Routes = append(p.Routes, Route{Pods: pods, Via: via, Node: n.Name})
			peer.Inside = append(peer.Inside, via)
		}
		if mode == VXLAN && len(peer.Inside) > 0 {
			p.Peers = append(p.Peers, peer)
		}
	}
	slices.SortFunc(p.Routes, func(a, b Route) int {
		if c := strings.Compare(a.Node, b.Node); c != 0 {
			return c
		}
		return half(a.Pods.Addr()) - half(b.Pods.Addr())
	})
	slices.SortFunc(p.Peers, func(a, b Peer) int { return strings.Compare(a.Node, b.Node) })
	return p
}
