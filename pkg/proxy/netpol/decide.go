package netpol

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// match is a rule that lets packets through: those whose other end is in the set, and whose port fits.
type match struct {
	set      string // "" for anybody
	protocol v1.Protocol
	low, up  uint16 // ports, both 0 for all
	paired   bool   // the set holds addresses with protocol and port
}

func (m match) String() string {
	var words []string
	if m.set != "" {
		words = append(words, "@"+m.set)
	}
	if m.protocol != "" {
		words = append(words, strings.ToLower(string(m.protocol)))
	}
	if m.up > 0 {
		words = append(words, fmt.Sprintf("%d-%d", m.low, m.up))
	}
	return strings.Join(append(words, "allow"), " ")
}

// span is a range of addresses; or one address, where it is paired with a protocol and port.
type span struct {
	from, to netip.Addr
	protocol v1.Protocol
	port     uint16
}

// rule is a policy as one family reads it.
type rule struct {
	*Policy
	selector labels.Selector
	words    map[*networkingv1.NetworkPolicyPeer]string // of a list of peers, by its first
}

func newRule(p *Policy) *rule {
	return &rule{p, selector(&p.Spec.PodSelector), map[*networkingv1.NetworkPolicyPeer]string{}}
}

// of answers what peers say, the same for the same peers.
func (p *rule) of(peers []networkingv1.NetworkPolicyPeer) string {
	if len(peers) == 0 {
		return "null"
	}
	said, there := p.words[&peers[0]]
	if !there {
		text, _ := json.Marshal(peers) // an API object has a JSON form
		said = string(text)
		p.words[&peers[0]] = said
	}
	return said
}

func hash(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:6])
}

// selector reads a selector; a malformed one fits nothing.
func selector(s *metav1.LabelSelector) labels.Selector {
	out, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		return labels.Nothing()
	}
	return out
}

// directed says whether a policy speaks of a direction. One that names none speaks of ingress, and of egress if it has rules for it.
func directed(s *networkingv1.NetworkPolicySpec, ingress bool) bool {
	if len(s.PolicyTypes) == 0 {
		return ingress || len(s.Egress) > 0
	}
	want := networkingv1.PolicyTypeEgress
	if ingress {
		want = networkingv1.PolicyTypeIngress
	}
	return slices.Contains(s.PolicyTypes, want)
}

// bundle is all that policies let through to or from a pod.
type bundle struct {
	allowed []match
	sets    map[string]*set // that it names
}

// decide works out a pod's bundle from the policies that select it.
func decide(family int, pod *Pod, policies []*rule, ingress bool) bundle {
	d := decider{family: family, pod: pod, ingress: ingress, bundle: bundle{sets: map[string]*set{}}}
	for _, p := range policies {
		if ingress {
			for _, r := range p.Spec.Ingress {
				d.matches(p, r.From, r.Ports)
			}
			continue
		}
		for _, r := range p.Spec.Egress {
			d.matches(p, r.To, r.Ports)
		}
	}
	slices.SortFunc(d.allowed, func(a, b match) int { return strings.Compare(a.String(), b.String()) })
	d.allowed = slices.Compact(d.allowed)
	// A rule whose named port the pod does not have names its peers in vain.
	named := map[string]bool{}
	for _, m := range d.allowed {
		named[m.set] = true
	}
	maps.DeleteFunc(d.sets, func(name string, _ *set) bool { return !named[name] })
	return d.bundle
}

// name of the bundle's chain: it says what is in it.
func (b bundle) name(ingress bool) string {
	prefix := "egress-"
	if ingress {
		prefix = "ingress-"
	}
	return prefix + hash(fmt.Sprint(b.allowed))
}

type decider struct {
	bundle
	family  int
	pod     *Pod
	ingress bool
}

// matches adds the combinations of a rule's peers and ports.
func (d *decider) matches(p *rule, peers []networkingv1.NetworkPolicyPeer, ports []networkingv1.NetworkPolicyPort) {
	sets := []string{""}
	if len(peers) > 0 {
		sets = d.peers(p, peers)
	}
	allow := func(m match) {
		for _, m.set = range sets {
			d.allowed = append(d.allowed, m)
		}
	}
	if len(ports) == 0 {
		allow(match{})
	}
	for _, port := range ports {
		protocol := v1.ProtocolTCP
		if port.Protocol != nil {
			protocol = *port.Protocol
		}
		switch {
		case port.Port == nil:
			allow(match{protocol: protocol})
		case port.Port.Type == intstr.Int:
			low := uint16(port.Port.IntVal)
			up := low
			if port.EndPort != nil {
				up = uint16(*port.EndPort)
			}
			allow(match{protocol: protocol, low: low, up: up})
		case d.ingress:
			// The name is this pod's.
			for _, own := range d.pod.Ports {
				if own.Name == port.Port.StrVal && own.Protocol == protocol {
					allow(match{protocol: protocol, low: own.Number, up: own.Number})
				}
			}
		default:
			// Each peer has its own number for it.
			s := newSet(p, peers)
			s.name = "named-" + hash(p.Namespace+p.of(peers)+string(protocol)+port.Port.StrVal)
			s.protocol, s.port = protocol, port.Port.StrVal
			d.sets[s.name] = s
			d.allowed = append(d.allowed, match{set: s.name, paired: true})
		}
	}
}

// peers answers the sets of a rule's peers: their pods' addresses in one, their address blocks in another. A set is named after what was asked for, not what it
// holds: it stays the same set while pods come and go.
func (d *decider) peers(p *rule, peers []networkingv1.NetworkPolicyPeer) (names []string) {
	var ranges []span
	for i := range peers {
		if b := peers[i].IPBlock; b != nil {
			ranges = append(ranges, remains(b, d.family)...)
		}
	}
	if len(ranges) > 0 {
		s := &set{name: "block-" + hash(p.of(peers)), ranges: merge(ranges)}
		d.sets[s.name] = s
		names = append(names, s.name)
	}
	if slices.ContainsFunc(peers, func(peer networkingv1.NetworkPolicyPeer) bool { return peer.IPBlock == nil }) {
		s := newSet(p, peers)
		s.name = "pods-" + hash(p.Namespace+p.of(peers))
		d.sets[s.name] = s
		names = append(names, s.name)
	}
	return names
}

// remains answers what a block leaves of its range.
func remains(b *networkingv1.IPBlock, family int) []span {
	whole, err := netip.ParsePrefix(b.CIDR)
	if err != nil || half(whole.Addr()) != family {
		return nil
	}
	left := []span{{from: whole.Masked().Addr(), to: last(whole)}}
	for _, s := range b.Except {
		except, err := netip.ParsePrefix(s)
		if err != nil || half(except.Addr()) != family {
			continue
		}
		low, up := except.Masked().Addr(), last(except)
		var rest []span
		for _, r := range left {
			if up.Less(r.from) || r.to.Less(low) {
				rest = append(rest, r)
				continue
			}
			if r.from.Less(low) {
				rest = append(rest, span{from: r.from, to: low.Prev()})
			}
			if up.Less(r.to) {
				rest = append(rest, span{from: up.Next(), to: r.to})
			}
		}
		left = rest
	}
	return left
}

// last answers the last address of a range.
func last(p netip.Prefix) netip.Addr {
	raw := p.Addr().AsSlice()
	for i := p.Bits(); i < len(raw)*8; i++ {
		raw[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(raw)
	return a
}

// merge makes ranges that neither overlap nor touch.
func merge(in []span) []span {
	slices.SortFunc(in, func(a, b span) int { return a.from.Compare(b.from) })
	var out []span
	for _, s := range in {
		if n := len(out); n > 0 && (!out[n-1].to.Less(s.from) || out[n-1].to.Next() == s.from) {
			if out[n-1].to.Less(s.to) {
				out[n-1].to = s.to
			}
			continue
		}
		out = append(out, s)
	}
	return out
}
