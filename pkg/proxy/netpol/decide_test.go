package netpol

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	"pgregory.net/rapid"
)

// allows says what a plan does to a packet from one pod to a local one, or back.
func (f *familyPlan) allows(t *rapid.T, chains map[netip.Addr]string, at, other netip.Addr, protocol v1.Protocol, port uint16, ingress bool) bool {
	name, isolated := chains[at]
	if !isolated {
		return true
	}
	rules, there := f.Chains[name]
	if !there {
		t.Fatalf("%v goes through %s, which is none", at, name)
	}
	for _, m := range rules {
		if m.set != "" {
			spans, there := f.Sets[m.set]
			if !there {
				t.Fatalf("%v asks for %s, which is none", m, m.set)
			}
			in := slices.ContainsFunc(spans, func(s span) bool {
				return !other.Less(s.from) && !s.to.Less(other) && (!m.paired || s.protocol == protocol && s.port == port)
			})
			if !in {
				continue
			}
		}
		if m.paired || (m.protocol == "" || m.protocol == protocol) && (m.up == 0 || m.low <= port && port <= m.up) {
			return true
		}
	}
	return false
}

func selects(s *metav1.LabelSelector, to map[string]string) bool {
	selector, err := metav1.LabelSelectorAsSelector(s)
	return err == nil && selector.Matches(labels.Set(to))
}

// should says the same from the API's words alone: a pod that policies select for a direction gets what one of their rules allows.
func should(s Snapshot, pod, other *Pod, at netip.Addr, protocol v1.Protocol, port uint16, ingress bool) bool {
	isolated := false
	for _, p := range s.Policies {
		if p.Namespace != pod.Namespace || !directed(&p.Spec, ingress) || !selects(&p.Spec.PodSelector, pod.Labels) {
			continue
		}
		isolated = true
		owner := pod // whose a port's name is
		if !ingress {
			owner = other
		}
		rule := func(peers []networkingv1.NetworkPolicyPeer, ports []networkingv1.NetworkPolicyPort) bool {
			// What an address block holds has no names for its ports.
			who := func(named bool) bool {
				return len(peers) == 0 || slices.ContainsFunc(peers, func(peer networkingv1.NetworkPolicyPeer) bool {
					if b := peer.IPBlock; b != nil {
						return !named && netip.MustParsePrefix(b.CIDR).Contains(at) && !slices.ContainsFunc(b.Except, func(e string) bool { return netip.MustParsePrefix(e).Contains(at) })
					}
					home := other.Namespace == p.Namespace
					if peer.NamespaceSelector != nil {
						home = selects(peer.NamespaceSelector, s.Namespaces[other.Namespace])
					}
					return home && (peer.PodSelector == nil || selects(peer.PodSelector, other.Labels))
				})
			}
			return len(ports) == 0 && who(false) || slices.ContainsFunc(ports, func(q networkingv1.NetworkPolicyPort) bool {
				named := q.Port != nil && q.Port.Type == intstr.String && !ingress
				switch {
				case !who(named):
					return false
				case *q.Protocol != protocol:
					return false
				case q.Port == nil:
					return true
				case q.Port.Type == intstr.Int:
					up := q.Port.IntVal
					if q.EndPort != nil {
						up = *q.EndPort
					}
					return int32(port) >= q.Port.IntVal && int32(port) <= up
				}
				return slices.Contains(owner.Ports, Port{q.Port.StrVal, protocol, port})
			})
		}
		if ingress && slices.ContainsFunc(p.Spec.Ingress, func(r networkingv1.NetworkPolicyIngressRule) bool { return rule(r.From, r.Ports) }) ||
			!ingress && slices.ContainsFunc(p.Spec.Egress, func(r networkingv1.NetworkPolicyEgressRule) bool { return rule(r.To, r.Ports) }) {
			return true
		}
	}
	return !isolated
}

// Whatever the policies say, a packet meets the same in the plan as in their words.
func TestMeaning(t *testing.T) {
	began := time.Now()
	rapid.Check(t, func(t *rapid.T) {
		if time.Since(began) > 5*time.Second {
			return // a loaded machine has seen enough of them
		}
		word := rapid.SampledFrom([]string{"x", "y"})
		labels := rapid.MapOfN(word, word, 0, 2)
		selector := rapid.Custom(func(t *rapid.T) *metav1.LabelSelector {
			return &metav1.LabelSelector{MatchLabels: rapid.MapOfN(word, word, 0, 1).Draw(t, "labels")}
		})
		protocol := rapid.SampledFrom([]v1.Protocol{v1.ProtocolTCP, v1.ProtocolUDP})
		number := rapid.SampledFrom([]uint16{80, 81, 90})
		peer := rapid.Custom(func(t *rapid.T) networkingv1.NetworkPolicyPeer {
			if rapid.IntRange(0, 3).Draw(t, "block") == 0 {
				return networkingv1.NetworkPolicyPeer{IPBlock: &networkingv1.IPBlock{CIDR: "10.244.0.0/29", Except: rapid.SliceOfN(rapid.SampledFrom([]string{"10.244.0.2/31", "10.244.0.4/32"}), 0, 2).Draw(t, "except")}}
			}
			var out networkingv1.NetworkPolicyPeer
			if rapid.Bool().Draw(t, "far") {
				out.NamespaceSelector = selector.Draw(t, "namespaces")
			}
			if out.NamespaceSelector == nil || rapid.Bool().Draw(t, "some") {
				out.PodSelector = selector.Draw(t, "pods")
			}
			return out
		})
		port := rapid.Custom(func(t *rapid.T) networkingv1.NetworkPolicyPort {
			own := protocol.Draw(t, "protocol")
			out := networkingv1.NetworkPolicyPort{Protocol: &own}
			switch rapid.IntRange(0, 3).Draw(t, "kind") {
			case 0:
				name := intstr.FromString(word.Draw(t, "name"))
				out.Port = &name
			case 1:
				low := intstr.FromInt32(int32(number.Draw(t, "low")))
				out.Port = &low
			case 2:
				low, up := intstr.FromInt32(80), int32(85)
				out.Port, out.EndPort = &low, &up
			}
			return out
		})
		s := Snapshot{Node: "a", Policies: map[string]*Policy{}, Pods: map[string]*Pod{}, Namespaces: map[string]map[string]string{"x": labels.Draw(t, "x"), "y": labels.Draw(t, "y")}}
		for i := range rapid.IntRange(1, 6).Draw(t, "pods") {
			p := &Pod{Namespace: word.Draw(t, "namespace"), Node: rapid.SampledFrom([]string{"a", "b"}).Draw(t, "node"), Labels: labels.Draw(t, "labels")}
			p.Key = fmt.Sprintf("%s/%d", p.Namespace, i)
			p.IPs[0] = netip.AddrFrom4([4]byte{10, 244, 0, byte(i + 1)})
			for _, name := range rapid.SliceOfNDistinct(word, 0, 2, rapid.ID).Draw(t, "ports") {
				p.Ports = append(p.Ports, Port{name, protocol.Draw(t, "protocol"), number.Draw(t, "number")})
			}
			s.Pods[p.Key] = p
		}
		for i := range rapid.IntRange(1, 4).Draw(t, "policies") {
			p := &Policy{Namespace: word.Draw(t, "namespace")}
			p.Key = fmt.Sprintf("%s/%d", p.Namespace, i)
			p.Spec.PodSelector = *selector.Draw(t, "selects")
			for range rapid.IntRange(0, 2).Draw(t, "ingress") {
				p.Spec.Ingress = append(p.Spec.Ingress, networkingv1.NetworkPolicyIngressRule{From: rapid.SliceOfN(peer, 0, 2).Draw(t, "from"), Ports: rapid.SliceOfN(port, 0, 2).Draw(t, "ports")})
			}
			for range rapid.IntRange(0, 2).Draw(t, "egress") {
				p.Spec.Egress = append(p.Spec.Egress, networkingv1.NetworkPolicyEgressRule{To: rapid.SliceOfN(peer, 0, 2).Draw(t, "to"), Ports: rapid.SliceOfN(port, 0, 2).Draw(t, "ports")})
			}
			s.Policies[p.Key] = p
		}
		plan := decide(s)
		f := &plan.Families[0]
		for _, pod := range s.Pods {
			if pod.Node != s.Node {
				continue
			}
			for _, other := range s.Pods {
				for _, protocol := range []v1.Protocol{v1.ProtocolTCP, v1.ProtocolUDP} {
					for _, port := range []uint16{80, 81, 90} {
						for ingress, chains := range map[bool]map[netip.Addr]string{true: f.Ingress, false: f.Egress} {
							got := f.allows(t, chains, pod.IPs[0], other.IPs[0], protocol, port, ingress)
							if want := should(s, pod, other, other.IPs[0], protocol, port, ingress); got != want {
								t.Fatalf("%s and %s, %s %d, ingress %v: %v, want %v\n%v", pod.Key, other.Key, protocol, port, ingress, got, want, plan)
							}
						}
					}
				}
			}
		}
	})
}

// A large cluster's plan: BenchmarkDecide tells what a change of anything in it costs.
func BenchmarkDecide(b *testing.B) {
	s := Snapshot{Node: "n0", Policies: map[string]*Policy{}, Pods: map[string]*Pod{}, Namespaces: map[string]map[string]string{}}
	for i := range 5000 {
		p := &Pod{Namespace: fmt.Sprint("x", i%50), Node: fmt.Sprint("n", i%50), Labels: map[string]string{"app": fmt.Sprint(i % 7), "tier": "web"}}
		p.Key = fmt.Sprintf("%s/%d", p.Namespace, i)
		p.IPs[0] = netip.AddrFrom4([4]byte{10, 244, byte(i >> 8), byte(i)})
		s.Pods[p.Key] = p
		s.Namespaces[p.Namespace] = map[string]string{"name": p.Namespace}
	}
	for i := range 200 {
		p := &Policy{Namespace: fmt.Sprint("x", i%50)}
		p.Key = fmt.Sprintf("%s/%d", p.Namespace, i)
		p.Spec.PodSelector = metav1.LabelSelector{MatchLabels: map[string]string{"tier": "web"}}
		p.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{{From: []networkingv1.NetworkPolicyPeer{
			{PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": fmt.Sprint(i % 7)}}, NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"name": fmt.Sprint("x", (i+1)%50)}}}}}}
		s.Policies[p.Key] = p
	}
	b.ReportAllocs()
	for b.Loop() {
		decide(s)
	}
}
