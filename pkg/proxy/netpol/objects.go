// Package netpol lets through to and from this node's pods what the cluster's NetworkPolicies allow.
//
// decide, pure, turns the policies that select a pod into a bundle of what they let through. A book, pure as well, holds one family's pods, bundles and
// the sets of addresses that these name, and brings them up to date with what changes: a pod touches the sets that it may be in and, where it is this node's,
// its own bundle; a policy touches the pods of this node that it selects. What is touched comes out as a delta, which Enforcer writes to a table of its own in
// nftables, whatever the Services' back end is. While there is any policy, packets of pods that are not known yet are dropped: a new pod's first packet meets its
// policies or nothing. One goroutine calls an Enforcer.
package netpol

import (
	"maps"
	"net/netip"
	"slices"

	v1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
)

// Pod is what policies ask of a pod.
type Pod struct {
	Key, Namespace string
	Node           string
	Labels         map[string]string
	IPs            [2]netip.Addr // IPv4 and IPv6; zero for none
	Ports          []Port        // with names
}

// Port is a named port of a pod.
type Port struct {
	Name     string
	Protocol v1.Protocol
	Number   uint16
}

// NewPod reads an API object; nil where it has no address of its own: it waits, has ended, or uses its node's.
func NewPod(o *v1.Pod) *Pod {
	if o.Spec.HostNetwork || o.Status.Phase == v1.PodSucceeded || o.Status.Phase == v1.PodFailed {
		return nil
	}
	p := &Pod{Key: o.Namespace + "/" + o.Name, Namespace: o.Namespace, Node: o.Spec.NodeName, Labels: o.Labels}
	ips := o.Status.PodIPs
	if len(ips) == 0 {
		ips = []v1.PodIP{{IP: o.Status.PodIP}}
	}
	for _, ip := range ips {
		if a, err := netip.ParseAddr(ip.IP); err == nil {
			p.IPs[half(a)] = a
		}
	}
	if p.IPs == [2]netip.Addr{} {
		return nil
	}
	add := func(containers []v1.Container) {
		for i := range containers {
			for _, c := range containers[i].Ports {
				if c.Name != "" {
					p.Ports = append(p.Ports, Port{c.Name, c.Protocol, uint16(c.ContainerPort)})
				}
			}
		}
	}
	add(o.Spec.Containers)
	add(o.Spec.InitContainers)
	return p
}

// Equal says that nothing of it differs.
func (p *Pod) Equal(o *Pod) bool {
	return p.Key == o.Key && p.Node == o.Node && p.IPs == o.IPs && maps.Equal(p.Labels, o.Labels) && slices.Equal(p.Ports, o.Ports)
}

func half(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}

// Policy is a NetworkPolicy.
type Policy struct {
	Key, Namespace string
	Spec           networkingv1.NetworkPolicySpec
}

// NewPolicy reads an API object.
func NewPolicy(o *networkingv1.NetworkPolicy) *Policy {
	return &Policy{Key: o.Namespace + "/" + o.Name, Namespace: o.Namespace, Spec: o.Spec}
}

// Changes are what became of what policies follow from, by their keys: nil for what has gone.
type Changes struct {
	Policies   map[string]*Policy
	Pods       map[string]*Pod
	Namespaces map[string]*Namespace
}

// Namespace is what policies ask of a namespace.
type Namespace struct {
	Name   string
	Labels map[string]string
}
