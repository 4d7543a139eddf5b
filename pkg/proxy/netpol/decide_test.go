package netpol

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	"pgregory.net/rapid"
)

// allows says what a book does to a packet from one pod to a local one, or back.
func (b *book) allows(t *rapid.T, at, other netip.Addr, protocol v1.Protocol, port uint16, way int) bool {
	name, isolated := b.verdicts[way][at]
	if !isolated {
		return true
	}
	c, there := b.chains[name]
	if !there {
		t.Fatalf("%v goes through %s, which is none", at, name)
	}
	for _, m := range c.rules {
		if m.set != "" {
			s, there := b.sets[m.set]
			if !there {
				t.Fatalf("%v asks for %s, which is none", m, m.set)
			}
			among := slices.ContainsFunc(s.spans(), func(s span) bool {
				return !other.Less(s.from) && !s.to.Less(other) && (!m.paired || s.protocol == protocol && s.port == port)
			})
			if !among {
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
func should(s Changes, pod, other *Pod, at netip.Addr, protocol v1.Protocol, port uint16, ingress bool) bool {
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
						home = selects(peer.NamespaceSelector, s.Namespaces[other.Namespace].Labels)
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

// drawn makes objects; those of before may stay, change or go.
func drawn(t *rapid.T, before Changes) Changes {
	word := rapid.SampledFrom([]string{"x", "y"})
	labels := rapid.MapOfN(word, word, 0, 2)
	selector := rapid.Custom(func(t *rapid.T) *metav1.LabelSelector {
		s := &metav1.LabelSelector{MatchLabels: rapid.MapOfN(word, word, 0, 1).Draw(t, "labels")}
		if rapid.IntRange(0, 3).Draw(t, "expression") == 0 {
			s.MatchExpressions = []metav1.LabelSelectorRequirement{{Key: word.Draw(t, "key"), Operator: rapid.SampledFrom([]metav1.LabelSelectorOperator{"In", "NotIn"}).Draw(t, "operator"),
				Values: rapid.SliceOfNDistinct(word, 1, 2, rapid.ID).Draw(t, "values")}}
		}
		return s
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
	stays := func() bool { return rapid.IntRange(0, 2).Draw(t, "stays") > 0 }
	s := nothing()
	for _, name := range []string{"x", "y"} {
		if s.Namespaces[name] = before.Namespaces[name]; s.Namespaces[name] == nil || !stays() {
			s.Namespaces[name] = &Namespace{name, labels.Draw(t, name)}
		}
	}
	for i := range rapid.IntRange(1, 6).Draw(t, "pods") {
		p := &Pod{Namespace: []string{"x", "y"}[i%2], Node: rapid.SampledFrom([]string{"a", "b"}).Draw(t, "node"), Labels: labels.Draw(t, "labels")}
		p.Key = fmt.Sprintf("%s/%d", p.Namespace, i)
		// The next one may have the address of one that went.
		p.IPs[0] = netip.AddrFrom4([4]byte{10, 244, 0, byte(6*rapid.IntRange(0, 1).Draw(t, "address") + i + 1)})
		for _, name := range rapid.SliceOfNDistinct(word, 0, 2, rapid.ID).Draw(t, "ports") {
			p.Ports = append(p.Ports, Port{name, protocol.Draw(t, "protocol"), number.Draw(t, "number")})
		}
		if s.Pods[p.Key] = before.Pods[p.Key]; s.Pods[p.Key] == nil || !stays() {
			s.Pods[p.Key] = p
		}
	}
	for i := range rapid.IntRange(1, 4).Draw(t, "policies") {
		p := &Policy{Namespace: []string{"x", "y"}[i%2]}
		p.Key = fmt.Sprintf("%s/%d", p.Namespace, i)
		if s.Policies[p.Key] = before.Policies[p.Key]; s.Policies[p.Key] != nil && stays() {
			continue
		}
		p.Spec.PodSelector = *selector.Draw(t, "selects")
		for range rapid.IntRange(0, 2).Draw(t, "ingress") {
			p.Spec.Ingress = append(p.Spec.Ingress, networkingv1.NetworkPolicyIngressRule{From: rapid.SliceOfN(peer, 0, 2).Draw(t, "from"), Ports: rapid.SliceOfN(port, 0, 2).Draw(t, "ports")})
		}
		for range rapid.IntRange(0, 2).Draw(t, "egress") {
			p.Spec.Egress = append(p.Spec.Egress, networkingv1.NetworkPolicyEgressRule{To: rapid.SliceOfN(peer, 0, 2).Draw(t, "to"), Ports: rapid.SliceOfN(port, 0, 2).Draw(t, "ports")})
		}
		s.Policies[p.Key] = p
	}
	return s
}

// told is what a kernel has that was told every delta.
type told struct {
	sets     map[string]map[span]bool
	chains   map[string]bool
	verdicts [2]map[netip.Addr]string
	known    map[netip.Addr]bool
}

// tell refuses what a kernel would refuse, too: to make what there is, and to take away what there is not.
func (k *told) tell(t *rapid.T, d delta) {
	must := func(fine bool, what string, of any) {
		if !fine {
			t.Fatalf("%s: %v\n%+v", what, of, d)
		}
	}
	for _, s := range d.setsCome {
		must(k.sets[s.name] == nil, "made twice", s.name)
		k.sets[s.name] = map[span]bool{}
	}
	for s, list := range d.gone {
		for _, m := range list {
			must(k.sets[s.name][m], "not in "+s.name, m)
			delete(k.sets[s.name], m)
		}
	}
	for s, list := range d.come {
		for _, m := range list {
			must(!k.sets[s.name][m], "twice in "+s.name, m)
			k.sets[s.name][m] = true
		}
	}
	for _, name := range d.chainsCome {
		must(!k.chains[name], "made twice", name)
		k.chains[name] = true
	}
	for way := range k.verdicts {
		for at, to := range d.away[way] {
			must(k.verdicts[way][at] == to, "not led to "+to, at)
			delete(k.verdicts[way], at)
		}
		for at, to := range d.toward[way] {
			must(k.verdicts[way][at] == "", "led already", at)
			must(k.chains[to], "led to no chain", to)
			k.verdicts[way][at] = to
		}
		for _, to := range k.verdicts[way] {
			must(!slices.Contains(d.chainsGone, to), "a chain goes that is used", to)
		}
	}
	for _, at := range d.unknown {
		must(k.known[at], "not known", at)
		delete(k.known, at)
	}
	for _, at := range d.known {
		must(!k.known[at], "known", at)
		k.known[at] = true
	}
	for _, name := range d.chainsGone {
		must(k.chains[name], "no chain", name)
		delete(k.chains, name)
	}
	for _, s := range d.setsGone {
		must(k.sets[s.name] != nil, "no set", s.name)
		delete(k.sets, s.name)
	}
}

func newTold() *told {
	return &told{sets: map[string]map[span]bool{}, chains: map[string]bool{}, verdicts: [2]map[netip.Addr]string{{}, {}}, known: map[netip.Addr]bool{}}
}

// Whatever the policies say, a packet meets the same in the book as in their words, however the book came there; and a kernel that is told what
// changes has what one has that is told everything.
func TestMeaning(t *testing.T) {
	began := time.Now()
	rapid.Check(t, func(t *rapid.T) {
		if time.Since(began) > 5*time.Second {
			return // a loaded machine has seen enough of them
		}
		b, k, s := newBook(0, "a"), newTold(), nothing()
		for range rapid.IntRange(1, 4).Draw(t, "times") {
			before := s
			s = drawn(t, before)
			b.apply(from(before, s))
			if rapid.IntRange(0, 3).Draw(t, "later") == 0 {
				continue // two changes are told at once
			}
			k.tell(t, b.take(false))
		}
		k.tell(t, b.take(false))
		anew := newBook(0, "a")
		anew.apply(s)
		all := newTold()
		all.tell(t, anew.take(true))
		if got, want := b.String(), anew.String(); got != want {
			t.Fatalf("after changes:\n%s\nat once:\n%s", got, want)
		}
		if !reflect.DeepEqual(k, all) {
			t.Fatalf("after changes:\n%+v\nat once:\n%+v", k, all)
		}
		again := newTold()
		again.tell(t, b.take(true))
		if !reflect.DeepEqual(again, all) {
			t.Fatalf("told again:\n%+v\nat once:\n%+v", again, all)
		}
		for _, pod := range s.Pods {
			if pod.Node != "a" {
				continue
			}
			for _, other := range s.Pods {
				for _, protocol := range []v1.Protocol{v1.ProtocolTCP, v1.ProtocolUDP} {
					for _, port := range []uint16{80, 81, 90} {
						for way, ingress := range []bool{true, false} {
							got := b.allows(t, pod.IPs[0], other.IPs[0], protocol, port, way)
							if want := should(s, pod, other, other.IPs[0], protocol, port, ingress); got != want {
								t.Fatalf("%s and %s, %s %d, ingress %v: %v, want %v\n%v", pod.Key, other.Key, protocol, port, ingress, got, want, b)
							}
						}
					}
				}
			}
		}
	})
}

// cpu is what this process has had: on a machine with other work, time tells nothing.
func cpu() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// What a change costs in clusters of more and more policies: a pod that comes and goes, one that is relabelled, and a namespace.
func BenchmarkChange(b *testing.B) {
	for _, policies := range []int{100, 1000, 5000} {
		s := nothing()
		const spaces, pods = 500, 5000
		for i := range pods {
			p := &Pod{Namespace: fmt.Sprint("x", i%spaces), Node: fmt.Sprint("n", i%50), Labels: map[string]string{"app": fmt.Sprint(i % 7), "tier": "web"}}
			p.Key = fmt.Sprintf("%s/%d", p.Namespace, i)
			p.IPs[0] = netip.AddrFrom4([4]byte{10, 244, byte(i >> 8), byte(i)})
			s.Pods[p.Key] = p
			s.Namespaces[p.Namespace] = &Namespace{p.Namespace, map[string]string{"name": p.Namespace}}
		}
		for i := range policies {
			p := &Policy{Namespace: fmt.Sprint("x", i%spaces)}
			p.Key = fmt.Sprintf("%s/%d", p.Namespace, i)
			p.Spec.PodSelector = metav1.LabelSelector{MatchLabels: map[string]string{"tier": "web"}}
			p.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{{From: []networkingv1.NetworkPolicyPeer{
				{PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": fmt.Sprint(i / spaces)}}, NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"name": fmt.Sprint("x", (i+1)%spaces)}}}}}}
			s.Policies[p.Key] = p
		}
		run := func(name string, change func(i int) Changes) {
			b.Run(fmt.Sprintf("%s/policies=%d", name, policies), func(b *testing.B) {
				book := newBook(0, "n0")
				book.apply(s)
				book.take(true)
				i := 0
				b.ReportAllocs()
				began := cpu()
				for b.Loop() {
					book.apply(change(i))
					book.take(false)
					i++
				}
				b.ReportMetric(float64((cpu()-began).Nanoseconds())/float64(i), "cpu-ns/op")
			})
		}
		b.Run(fmt.Sprintf("all/policies=%d", policies), func(b *testing.B) {
			began, n := cpu(), 0
			for b.Loop() {
				book := newBook(0, "n0")
				book.apply(s)
				book.take(true)
				n++
			}
			b.ReportMetric(float64((cpu()-began).Nanoseconds())/float64(n), "cpu-ns/op")
		})
		pod := func(space, node string, i int) map[string]*Pod {
			p := &Pod{Key: "x7/other", Namespace: space, Node: node, Labels: map[string]string{"app": fmt.Sprint(i % 7), "tier": "web"}}
			p.IPs[0] = netip.AddrFrom4([4]byte{10, 244, 200, 1})
			return map[string]*Pod{p.Key: p}
		}
		run("far", func(i int) Changes { return Changes{Pods: pod("x7", "n1", i)} })
		run("local", func(i int) Changes { return Changes{Pods: pod("x7", "n0", i)} })
		run("namespace", func(i int) Changes {
			return Changes{Namespaces: map[string]*Namespace{"x1": {"x1", map[string]string{"name": fmt.Sprint("x", 1+i%2)}}}}
		})
	}
}
