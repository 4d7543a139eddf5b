package netpol

import (
	"cmp"
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

// half-plans: one family's sets, chains, and pods.
type familyPlan struct {
	Sets    map[string][]span     // by name; names starting with "block" hold ranges, with "named" pairs
	Chains  map[string][]match    // what no rule of a chain allows is dropped
	Ingress map[netip.Addr]string // this node's isolated pods and their chains
	Egress  map[netip.Addr]string
	Known   []netip.Addr // this node's pods
	Pods    netip.Prefix // whatever is in it must be known; zero: nothing must
}

// Plan is what the kernel should hold; nothing at all while there is no policy.
type Plan struct {
	Active   bool
	Families [2]familyPlan
}

// String prints the plan.
func (p Plan) String() string {
	var b strings.Builder
	for i, f := range p.Families {
		if !p.Active || len(f.Known) == 0 && len(f.Chains) == 0 {
			continue
		}
		fmt.Fprintf(&b, "%s known %v within %v\n", []string{"IPv4", "IPv6"}[i], f.Known, f.Pods)
		for _, name := range slices.Sorted(maps.Keys(f.Sets)) {
			fmt.Fprintf(&b, "  set %s", name)
			for _, s := range f.Sets[name] {
				switch {
				case s.port > 0:
					fmt.Fprintf(&b, " %v:%s:%d", s.from, s.protocol, s.port)
				case s.from == s.to:
					fmt.Fprintf(&b, " %v", s.from)
				default:
					fmt.Fprintf(&b, " %v-%v", s.from, s.to)
				}
			}
			b.WriteByte('\n')
		}
		for _, name := range slices.Sorted(maps.Keys(f.Chains)) {
			fmt.Fprintf(&b, "  chain %s\n", name)
			for _, m := range f.Chains[name] {
				fmt.Fprintf(&b, "    %v\n", m)
			}
		}
		for _, way := range []struct {
			name string
			to   map[netip.Addr]string
		}{{"to", f.Ingress}, {"from", f.Egress}} {
			for _, a := range slices.SortedFunc(maps.Keys(way.to), netip.Addr.Compare) {
				fmt.Fprintf(&b, "  %s %v: %s\n", way.name, a, way.to[a])
			}
		}
	}
	return b.String()
}

func hash(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:6])
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

// decider works one family out.
type decider struct {
	Snapshot
	family    int
	pods      []*Pod             // with an address of the family, in the order of their names
	in        map[string][]*Pod  // the same by namespace
	policies  map[string][]*rule // by namespace, in the order of their names
	selectors map[*metav1.LabelSelector]labels.Selector
	made      map[string]bool // names of sets that were worked out: all pods behind a policy ask for the same. False: nobody is in it
	out       *familyPlan
}

// rule is a policy with what its peers are called, worked out once.
type rule struct {
	*Policy
	selector labels.Selector
	words    map[*networkingv1.NetworkPolicyPeer]string // of a list of peers, by its first
}

// decide works out the plan.
func decide(s Snapshot) Plan {
	p := Plan{Active: len(s.Policies) > 0}
	if !p.Active {
		return p
	}
	for family := range p.Families {
		d := decider{Snapshot: s, family: family, in: map[string][]*Pod{}, policies: map[string][]*rule{}, selectors: map[*metav1.LabelSelector]labels.Selector{},
			made: map[string]bool{}, out: &p.Families[family]}
		*d.out = familyPlan{Sets: map[string][]span{}, Chains: map[string][]match{}, Ingress: map[netip.Addr]string{}, Egress: map[netip.Addr]string{}, Pods: s.NodePods[family]}
		for _, key := range slices.Sorted(maps.Keys(s.Pods)) {
			if pod := s.Pods[key]; pod.IPs[family].IsValid() {
				d.pods = append(d.pods, pod)
				d.in[pod.Namespace] = append(d.in[pod.Namespace], pod)
			}
		}
		for _, key := range slices.Sorted(maps.Keys(s.Policies)) {
			p := s.Policies[key]
			d.policies[p.Namespace] = append(d.policies[p.Namespace], &rule{p, d.selector(&p.Spec.PodSelector), map[*networkingv1.NetworkPolicyPeer]string{}})
		}
		for _, pod := range d.pods {
			if pod.Node != s.Node {
				continue
			}
			at := pod.IPs[family]
			d.out.Known = append(d.out.Known, at)
			d.isolate(pod, true, d.out.Ingress)
			d.isolate(pod, false, d.out.Egress)
		}
		slices.SortFunc(d.out.Known, netip.Addr.Compare)
		d.out.Known = slices.Compact(d.out.Known)
	}
	return p
}

// isolate puts a pod behind the chain of all policies that select it for a direction; behind none where none does.
func (d *decider) isolate(pod *Pod, ingress bool, into map[netip.Addr]string) {
	var allowed []match
	isolated := false
	for _, p := range d.policies[pod.Namespace] {
		if !directed(&p.Spec, ingress) || !p.selector.Matches(labels.Set(pod.Labels)) {
			continue
		}
		isolated = true
		if ingress {
			for _, r := range p.Spec.Ingress {
				allowed = append(allowed, d.matches(p, pod, r.From, r.Ports, true)...)
			}
			continue
		}
		for _, r := range p.Spec.Egress {
			allowed = append(allowed, d.matches(p, pod, r.To, r.Ports, false)...)
		}
	}
	if !isolated {
		return
	}
	prefix := "egress-"
	if ingress {
		prefix = "ingress-"
	}
	slices.SortFunc(allowed, func(a, b match) int { return strings.Compare(a.String(), b.String()) })
	allowed = slices.Compact(allowed)
	name := prefix + hash(fmt.Sprint(allowed))
	d.out.Chains[name] = allowed
	into[pod.IPs[d.family]] = name
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

// selector reads a selector once; a malformed one fits nothing.
func (d *decider) selector(s *metav1.LabelSelector) labels.Selector {
	out, there := d.selectors[s]
	if !there {
		var err error
		if out, err = metav1.LabelSelectorAsSelector(s); err != nil {
			out = labels.Nothing()
		}
		d.selectors[s] = out
	}
	return out
}

// matches are the combinations of a rule's peers and ports for a pod.
func (d *decider) matches(p *rule, pod *Pod, peers []networkingv1.NetworkPolicyPeer, ports []networkingv1.NetworkPolicyPort, ingress bool) []match {
	sets := []string{""}
	if len(peers) > 0 {
		sets = d.sets(p, peers)
	}
	if len(ports) == 0 {
		var out []match
		for _, s := range sets {
			out = append(out, match{set: s})
		}
		return out
	}
	var out []match
	for _, port := range ports {
		protocol := v1.ProtocolTCP
		if port.Protocol != nil {
			protocol = *port.Protocol
		}
		switch {
		case port.Port == nil:
			for _, s := range sets {
				out = append(out, match{set: s, protocol: protocol})
			}
		case port.Port.Type == intstr.Int:
			low := uint16(port.Port.IntVal)
			up := low
			if port.EndPort != nil {
				up = uint16(*port.EndPort)
			}
			for _, s := range sets {
				out = append(out, match{set: s, protocol: protocol, low: low, up: up})
			}
		case ingress:
			// The name is this pod's.
			for _, own := range pod.Ports {
				if own.Name == port.Port.StrVal && own.Protocol == protocol {
					for _, s := range sets {
						out = append(out, match{set: s, protocol: protocol, low: own.Number, up: own.Number})
					}
				}
			}
		default:
			if name := d.named(p, peers, protocol, port.Port.StrVal); name != "" {
				out = append(out, match{set: name, paired: true})
			}
		}
	}
	return out
}

// sets makes the sets of a rule's peers: their pods' addresses in one, their address blocks in another.
func (d *decider) sets(p *rule, peers []networkingv1.NetworkPolicyPeer) []string {
	words := p.of(peers)
	blocks := d.set("block-", words, func() (out []span) {
		for i := range peers {
			if b := peers[i].IPBlock; b != nil {
				out = append(out, d.block(b)...)
			}
		}
		return merge(out)
	})
	pods := d.set("pods-", p.Namespace+words, func() (out []span) {
		for i := range peers {
			if peers[i].IPBlock != nil {
				continue
			}
			for _, pod := range d.chosen(p, &peers[i]) {
				out = append(out, span{from: pod.IPs[d.family], to: pod.IPs[d.family]})
			}
		}
		slices.SortFunc(out, func(a, b span) int { return a.from.Compare(b.from) })
		return slices.Compact(out)
	})
	return slices.DeleteFunc([]string{blocks, pods}, func(name string) bool { return name == "" })
}

// set names a set after what was asked for, not what it holds: it stays the same set while pods come and go. Without anything in it there is none.
func (d *decider) set(prefix, of string, spans func() []span) string {
	name := prefix + hash(of)
	some, there := d.made[name]
	if !there {
		held := spans()
		if some = len(held) > 0; some {
			d.out.Sets[name] = held
		}
		d.made[name] = some
	}
	if !some {
		return ""
	}
	return name
}

// chosen are the pods that a peer means, in any order.
func (d *decider) chosen(p *rule, peer *networkingv1.NetworkPolicyPeer) []*Pod {
	var out []*Pod
	add := func(pods []*Pod) {
		for _, pod := range pods {
			if peer.PodSelector == nil || d.selector(peer.PodSelector).Matches(labels.Set(pod.Labels)) {
				out = append(out, pod)
			}
		}
	}
	if peer.NamespaceSelector == nil {
		add(d.in[p.Namespace])
		return out
	}
	for name, pods := range d.in {
		if d.selector(peer.NamespaceSelector).Matches(labels.Set(d.Namespaces[name])) {
			add(pods)
		}
	}
	return out
}

// named makes the set of the peers' ports of a name: each pod has its own number for it.
func (d *decider) named(p *rule, peers []networkingv1.NetworkPolicyPeer, protocol v1.Protocol, name string) string {
	return d.set("named-", p.Namespace+p.of(peers)+string(protocol)+name, func() (out []span) {
		add := func(pod *Pod) {
			for _, own := range pod.Ports {
				if own.Name == name && own.Protocol == protocol {
					out = append(out, span{from: pod.IPs[d.family], to: pod.IPs[d.family], protocol: protocol, port: own.Number})
				}
			}
		}
		if len(peers) == 0 {
			for _, pod := range d.pods {
				add(pod)
			}
		}
		for i := range peers {
			if peers[i].IPBlock == nil {
				for _, pod := range d.chosen(p, &peers[i]) {
					add(pod)
				}
			}
		}
		slices.SortFunc(out, func(a, b span) int { return cmp.Or(a.from.Compare(b.from), cmp.Compare(a.port, b.port)) })
		return slices.Compact(out)
	})
}

// block answers what a block leaves of its range.
func (d *decider) block(b *networkingv1.IPBlock) []span {
	whole, err := netip.ParsePrefix(b.CIDR)
	if err != nil || half(whole.Addr()) != d.family {
		return nil
	}
	left := []span{{from: whole.Masked().Addr(), to: last(whole)}}
	for _, s := range b.Except {
		except, err := netip.ParsePrefix(s)
		if err != nil || half(except.Addr()) != d.family {
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
