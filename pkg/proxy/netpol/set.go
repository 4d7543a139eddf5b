package netpol

import (
	"cmp"
	"slices"

	v1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
)

// set is addresses that rules name: of the pods that peers mean, or ranges.
type set struct {
	name      string
	ranges    []span // of a set of address blocks, which never changes
	namespace string // of the policy
	peers     []peer // none for all pods
	protocol  v1.Protocol
	port      string // of pods with a port of this name; "" for their addresses alone

	used    int           // by how many chains
	members map[span]int  // by how many pods
	moved   map[span]bool // those that came or went since the kernel was told
	held    bool          // the kernel has the set
	keys    []key         // under which the index has it
	stamp   int           // of the last question that met it
}

// peer is what selects pods.
type peer struct {
	namespaces labels.Selector // nil for the policy's own namespace
	pods       labels.Selector // nil for all
}

// newSet reads peers, but for address blocks.
func newSet(p *rule, peers []networkingv1.NetworkPolicyPeer) *set {
	s := &set{namespace: p.Namespace}
	for i := range peers {
		if peers[i].IPBlock != nil {
			continue
		}
		var one peer
		if at := peers[i].NamespaceSelector; at != nil {
			one.namespaces = selector(at)
		}
		if at := peers[i].PodSelector; at != nil {
			one.pods = selector(at)
		}
		s.peers = append(s.peers, one)
	}
	if len(peers) > 0 && len(s.peers) == 0 {
		s.peers = []peer{{pods: labels.Nothing()}} // address blocks alone have no pods
	}
	return s
}

// of answers what a pod, whose namespace has these labels, adds to the set.
func (s *set) of(pod *Pod, family int, namespace map[string]string) (out []span) {
	if pod == nil || !pod.IPs[family].IsValid() || !s.means(pod, namespace) {
		return nil
	}
	at := pod.IPs[family]
	if s.port == "" {
		return []span{{from: at, to: at}}
	}
	for _, own := range pod.Ports {
		if own.Name == s.port && own.Protocol == s.protocol {
			out = append(out, span{from: at, to: at, protocol: own.Protocol, port: own.Number})
		}
	}
	return out
}

func (s *set) means(pod *Pod, namespace map[string]string) bool {
	return len(s.peers) == 0 || slices.ContainsFunc(s.peers, func(p peer) bool {
		if p.namespaces == nil {
			if pod.Namespace != s.namespace {
				return false
			}
		} else if !p.namespaces.Matches(labels.Set(namespace)) {
			return false
		}
		return p.pods == nil || p.pods.Matches(labels.Set(pod.Labels))
	})
}

// move takes out what a pod added, and puts in what it adds now.
func (s *set) move(was, is []span) {
	if slices.Equal(was, is) {
		return
	}
	for _, m := range was {
		if s.members[m]--; s.members[m] == 0 {
			delete(s.members, m)
			s.turn(m)
		}
	}
	for _, m := range is {
		if s.members[m]++; s.members[m] == 1 {
			s.turn(m)
		}
	}
}

// turn notes that a member came or went; twice is nothing.
func (s *set) turn(m span) {
	if s.moved[m] {
		delete(s.moved, m)
	} else {
		s.moved[m] = true
	}
}

// spans are what is in the set, in order.
func (s *set) spans() []span {
	if s.ranges != nil {
		return s.ranges
	}
	out := make([]span, 0, len(s.members))
	for m := range s.members {
		out = append(out, m)
	}
	return ordered(out)
}

func ordered(in []span) []span {
	slices.SortFunc(in, func(a, b span) int {
		return cmp.Or(a.from.Compare(b.from), cmp.Compare(a.protocol, b.protocol), cmp.Compare(a.port, b.port))
	})
	return in
}

// key is a label, or none, by which an index finds what selects it.
type key struct {
	of        byte // 'l' for pods of the namespace, 'n' for namespaces' labels, 'p' for pods' labels anywhere, '*' for all else
	namespace string
	label     string
	value     string
}

// labelled answers keys of a selector: one of its requirements that names values, under each of them. Without any, the key is without a label.
func labelled(of byte, namespace string, s labels.Selector) (keys []key, named bool) {
	if s != nil {
		requirements, _ := s.Requirements()
		for _, r := range requirements {
			switch r.Operator() {
			case selection.In, selection.Equals, selection.DoubleEquals:
				for value := range r.Values() {
					keys = append(keys, key{of, namespace, r.Key(), value})
				}
				return keys, true
			}
		}
	}
	return []key{{of: of, namespace: namespace}}, false
}

// of answers under which keys a peer is found.
func (p peer) of(namespace string) []key {
	if p.namespaces == nil {
		keys, _ := labelled('l', namespace, p.pods)
		return keys
	}
	if keys, named := labelled('n', "", p.namespaces); named {
		return keys
	}
	if keys, named := labelled('p', "", p.pods); named {
		return keys
	}
	return []key{{of: '*'}}
}

// index finds what may select a pod.
type index[T any] map[key][]T

func (i index[T]) put(k key, o T) { i[k] = append(i[k], o) }

func (i index[T]) drop(k key, same func(T) bool) {
	at := slices.IndexFunc(i[k], same)
	list := i[k]
	list[at] = list[len(list)-1]
	clear(list[len(list)-1:])
	if i[k] = list[:len(list)-1]; len(i[k]) == 0 {
		delete(i, k)
	}
}

// local yields what selects by the labels of a pod of a namespace.
func (i index[T]) local(namespace string, own map[string]string, yield func(T)) {
	i.each(key{of: 'l', namespace: namespace}, yield)
	for k, v := range own {
		i.each(key{'l', namespace, k, v}, yield)
	}
}

func (i index[T]) each(k key, yield func(T)) {
	for _, o := range i[k] {
		yield(o)
	}
}

// candidates yields what may mean a pod whose namespace has these labels; one may come twice.
func (i index[T]) candidates(pod *Pod, namespace map[string]string, yield func(T)) {
	i.local(pod.Namespace, pod.Labels, yield)
	for k, v := range namespace {
		i.each(key{of: 'n', label: k, value: v}, yield)
	}
	for k, v := range pod.Labels {
		i.each(key{of: 'p', label: k, value: v}, yield)
	}
	i.each(key{of: '*'}, yield)
}
