package netpol

import (
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
	v1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// part is a policy, or one of its rules, peers or ports with what is around it.
type part struct {
	*networkingv1.NetworkPolicySpec
	ingress bool
	rule    bool
	peers   []networkingv1.NetworkPolicyPeer
	ports   []networkingv1.NetworkPolicyPort
	peer    networkingv1.NetworkPolicyPeer
	port    networkingv1.NetworkPolicyPort
}

func (p part) protocol(is v1.Protocol) bool { return p.port.Protocol != nil && *p.port.Protocol == is }

func (p part) named(ingress bool) bool {
	return p.ingress == ingress && p.port.Port != nil && p.port.Port.Type == intstr.String
}

func everybody(s *metav1.LabelSelector) bool {
	return s != nil && len(s.MatchLabels)+len(s.MatchExpressions) == 0
}

// shapes are all that a policy may say.
var shapes = map[string]func(part) bool{
	"ingress by default":     func(p part) bool { return len(p.PolicyTypes) == 0 && len(p.Egress) == 0 },
	"egress by its rule":     func(p part) bool { return len(p.PolicyTypes) == 0 && len(p.Egress) > 0 },
	"both, nothing":          func(p part) bool { return len(p.PolicyTypes) == 2 && len(p.Ingress)+len(p.Egress) == 0 },
	"egress alone":           func(p part) bool { return slices.Equal(p.PolicyTypes, []networkingv1.PolicyType{"Egress"}) },
	"for all pods":           func(p part) bool { return everybody(&p.PodSelector) },
	"for pods by expression": func(p part) bool { return len(p.PodSelector.MatchExpressions) > 0 },
	"everybody, every port":  func(p part) bool { return p.rule && len(p.peers)+len(p.ports) == 0 },
	"everybody, a port":      func(p part) bool { return p.rule && len(p.peers) == 0 && len(p.ports) > 0 },
	"a peer, every port":     func(p part) bool { return p.rule && len(p.peers) > 0 && len(p.ports) == 0 },
	"several peers":          func(p part) bool { return len(p.peers) > 1 },
	"several ports":          func(p part) bool { return len(p.ports) > 1 },
	"pods of the namespace":  func(p part) bool { return p.peer.PodSelector != nil && p.peer.NamespaceSelector == nil },
	"namespaces":             func(p part) bool { return p.peer.PodSelector == nil && p.peer.NamespaceSelector != nil },
	"pods of namespaces":     func(p part) bool { return p.peer.PodSelector != nil && p.peer.NamespaceSelector != nil },
	"all pods here":          func(p part) bool { return p.peer.NamespaceSelector == nil && everybody(p.peer.PodSelector) },
	"all pods anywhere":      func(p part) bool { return everybody(p.peer.NamespaceSelector) },
	"pods by expression":     func(p part) bool { return p.peer.PodSelector != nil && len(p.peer.PodSelector.MatchExpressions) > 0 },
	"a block":                func(p part) bool { return p.peer.IPBlock != nil },
	"a block of IPv6":        func(p part) bool { return p.peer.IPBlock != nil && strings.Contains(p.peer.IPBlock.CIDR, ":") },
	"a block but some":       func(p part) bool { return p.peer.IPBlock != nil && len(p.peer.IPBlock.Except) > 1 },
	"blocks and pods": func(p part) bool {
		return p.peer.IPBlock != nil && slices.ContainsFunc(p.peers, func(o networkingv1.NetworkPolicyPeer) bool { return o.IPBlock == nil })
	},
	"a number": func(p part) bool {
		return p.port.Port != nil && p.port.Port.Type == intstr.Int && p.port.EndPort == nil
	},
	"a range":                  func(p part) bool { return p.port.EndPort != nil },
	"a protocol alone":         func(p part) bool { return p.port.Protocol != nil && p.port.Port == nil },
	"a name, in":               func(p part) bool { return p.named(true) },
	"a name, out":              func(p part) bool { return p.named(false) },
	"a name, out to everybody": func(p part) bool { return p.named(false) && len(p.peers) == 0 },
	"UDP":                      func(p part) bool { return p.protocol(v1.ProtocolUDP) },
	"SCTP":                     func(p part) bool { return p.protocol(v1.ProtocolSCTP) },
}

// parts takes a policy apart.
func parts(s *networkingv1.NetworkPolicySpec) []part {
	out := []part{{NetworkPolicySpec: s}}
	rule := func(ingress bool, peers []networkingv1.NetworkPolicyPeer, ports []networkingv1.NetworkPolicyPort) {
		p := part{NetworkPolicySpec: s, ingress: ingress, rule: true, peers: peers, ports: ports}
		out = append(out, p)
		for _, one := range peers {
			p := p
			p.peer = one
			out = append(out, p)
		}
		for _, one := range ports {
			p := p
			p.port = one
			out = append(out, p)
		}
	}
	for _, r := range s.Ingress {
		rule(true, r.From, r.Ports)
	}
	for _, r := range s.Egress {
		rule(false, r.To, r.Ports)
	}
	return out
}

// Every shape is in the script, and so in its golden.
func TestCensusOfShapes(t *testing.T) {
	ar, err := txtar.ParseFile("testdata/policies.txtar")
	if err != nil {
		t.Fatal(err)
	}
	var all []part
	for _, p := range objects(t, string(ar.Files[0].Data)).Policies {
		all = append(all, parts(&p.Spec)...)
	}
	for name, is := range shapes {
		if !slices.ContainsFunc(all, is) {
			t.Errorf("the script does not have: %s", name)
		}
	}
}
