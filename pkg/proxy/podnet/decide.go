// Package podnet joins the pods of all nodes: routes to the other nodes' pod addresses, and the CNI configuration of this one.
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

// Route leads to the pods of one node.
type Route struct {
	Pods netip.Prefix
	Via  netip.Addr
	Node string
}

// Plan is what this node's network should be.
type Plan struct {
	Pods   netip.Prefix // this node's own; zero while it has none
	Routes []Route
}

// String prints the plan.
func (p Plan) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "pods %v\n", p.Pods)
	for _, r := range p.Routes {
		fmt.Fprintf(&b, "%v via %v (%s)\n", r.Pods, r.Via, r.Node)
	}
	return b.String()
}

// decide works out the plan of the named node.
func decide(name string, nodes []*v1.Node) Plan {
	var p Plan
	for _, n := range nodes {
		pods, ok := podCIDR(n)
		if !ok {
			continue
		}
		if n.Name == name {
			p.Pods = pods
			continue
		}
		for _, a := range n.Status.Addresses {
			via, err := netip.ParseAddr(a.Address)
			if a.Type == v1.NodeInternalIP && err == nil && via.Is4() {
				p.Routes = append(p.Routes, Route{Pods: pods, Via: via, Node: n.Name})
				break
			}
		}
	}
	slices.SortFunc(p.Routes, func(a, b Route) int { return strings.Compare(a.Node, b.Node) })
	return p
}

// podCIDR answers a node's IPv4 pod range.
func podCIDR(n *v1.Node) (netip.Prefix, bool) {
	for _, s := range append([]string{n.Spec.PodCIDR}, n.Spec.PodCIDRs...) {
		if p, err := netip.ParsePrefix(s); err == nil && p.Addr().Is4() {
			return p.Masked(), true
		}
	}
	return netip.Prefix{}, false
}
