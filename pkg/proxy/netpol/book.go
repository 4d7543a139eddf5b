package netpol

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/labels"
)

// The directions of a book's pairs.
const (
	in, out = 0, 1
)

// book is what the kernel should hold of one family, kept up to date with changes. What a change costs follows from what it touches, not from how much there is.
type book struct {
	family     int
	node       string
	namespaces map[string]*Namespace
	pods       map[string]*Pod            // with an address of the family
	within     map[string]map[string]*Pod // the same by namespace
	policies   map[string]*rule
	selecting  index[*rule] // policies, by the pods that they select

	locals map[string]*local                // this node's pods
	at     map[netip.Addr]map[string]*local // the same by address: one may be taken over before its former pod is gone
	near   map[string]map[string]*local     // the same by namespace
	chains map[string]*chain
	sets   map[string]*set
	asking index[*set] // sets, by the pods that they may hold
	stamp  int

	verdicts [2]map[netip.Addr]string // through which chain an address goes
	was      [2]map[netip.Addr]string // the same of those that changed since the kernel was told; "" for none
	known    map[netip.Addr]bool      // this node's pods that came or went since then
	idle     []string                 // chains that nobody used at some time since then
	newer    map[string]bool          // chains and sets that changed since then
}

// local is a pod of this node.
type local struct {
	pod    *Pod
	chains [2]string // "" where no policy selects it
}

// chain is a bundle's rules: what none of them allows is dropped.
type chain struct {
	rules []match
	sets  []string
	used  int  // by how many pods
	held  bool // the kernel has it
}

func newBook(family int, node string) *book {
	return &book{family: family, node: node, namespaces: map[string]*Namespace{}, pods: map[string]*Pod{}, within: map[string]map[string]*Pod{}, policies: map[string]*rule{},
		selecting: index[*rule]{}, locals: map[string]*local{}, at: map[netip.Addr]map[string]*local{}, near: map[string]map[string]*local{}, chains: map[string]*chain{},
		sets: map[string]*set{}, asking: index[*set]{}, verdicts: [2]map[netip.Addr]string{{}, {}}, was: [2]map[netip.Addr]string{{}, {}}, known: map[netip.Addr]bool{}, newer: map[string]bool{}}
}

// apply brings the book up to date.
func (b *book) apply(c Changes) {
	for _, name := range slices.Sorted(maps.Keys(c.Namespaces)) {
		b.setNamespace(name, c.Namespaces[name])
	}
	again := map[string]bool{}
	for _, name := range slices.Sorted(maps.Keys(c.Policies)) {
		b.setPolicy(name, c.Policies[name], again)
	}
	for _, name := range slices.Sorted(maps.Keys(c.Pods)) {
		b.setPod(name, c.Pods[name])
		delete(again, name)
	}
	for _, name := range slices.Sorted(maps.Keys(again)) {
		b.rebundle(b.locals[name])
	}
}

func (b *book) labels(namespace string) map[string]string {
	if n := b.namespaces[namespace]; n != nil {
		return n.Labels
	}
	return nil
}

func (b *book) setNamespace(name string, is *Namespace) {
	was := b.labels(name)
	if is == nil {
		delete(b.namespaces, name)
	} else {
		b.namespaces[name] = is
	}
	now := b.labels(name)
	if maps.Equal(was, now) {
		return
	}
	for _, pod := range b.within[name] {
		b.moves(pod, was, pod, now)
	}
}

// moves brings the sets up to date with a pod that changed, or whose namespace did.
func (b *book) moves(was *Pod, before map[string]string, is *Pod, now map[string]string) {
	b.stamp++
	move := func(s *set) {
		if s.stamp == b.stamp {
			return
		}
		s.stamp = b.stamp
		s.move(s.of(was, b.family, before), s.of(is, b.family, now))
		if len(s.moved) > 0 {
			b.newer[s.name] = true
		}
	}
	if was != nil {
		b.asking.candidates(was, before, move)
	}
	if is != nil {
		b.asking.candidates(is, now, move)
	}
}

func add[T any](in map[string]map[string]T, name, key string, o T) {
	if in[name] == nil {
		in[name] = map[string]T{}
	}
	in[name][key] = o
}

func take[T any](in map[string]map[string]T, name, key string) {
	if delete(in[name], key); len(in[name]) == 0 {
		delete(in, name)
	}
}

func (b *book) setPod(name string, is *Pod) {
	if is != nil && !is.IPs[b.family].IsValid() {
		is = nil
	}
	was := b.pods[name]
	if was == nil && is == nil {
		return
	}
	if was != nil {
		delete(b.pods, name)
		take(b.within, was.Namespace, name)
	}
	if is != nil {
		b.pods[name] = is
		add(b.within, is.Namespace, name, is)
	}
	space := b.labels(cmp.Or(was, is).Namespace)
	b.moves(was, space, is, space)

	l := b.locals[name]
	here := is != nil && is.Node == b.node
	if l != nil && (!here || is.IPs[b.family] != l.pod.IPs[b.family]) {
		b.leave(name, l)
		l = nil
	}
	if !here {
		return
	}
	if l == nil {
		l = &local{}
		at := is.IPs[b.family]
		b.locals[name] = l
		add(b.near, is.Namespace, name, l)
		if b.at[at] == nil {
			b.at[at] = map[string]*local{}
			b.turn(at)
		}
		b.at[at][name] = l
	}
	l.pod = is
	b.rebundle(l)
}

// leave forgets a pod of this node.
func (b *book) leave(name string, l *local) {
	at := l.pod.IPs[b.family]
	delete(b.locals, name)
	take(b.near, l.pod.Namespace, name)
	if delete(b.at[at], name); len(b.at[at]) == 0 {
		delete(b.at, at)
		b.turn(at)
	}
	for way, name := range l.chains {
		b.release(name)
		b.lead(way, at)
	}
}

// turn notes that an address became known, or no longer is; twice is nothing.
func (b *book) turn(at netip.Addr) {
	if b.known[at] {
		delete(b.known, at)
	} else {
		b.known[at] = true
	}
}

func (b *book) setPolicy(name string, is *Policy, again map[string]bool) {
	for _, r := range []*rule{b.policies[name], b.ruled(name, is)} {
		if r == nil {
			continue
		}
		for key, l := range b.near[r.Namespace] {
			if r.selector.Matches(labels.Set(l.pod.Labels)) {
				again[key] = true
			}
		}
	}
}

// ruled puts a policy in its place, and answers it as a rule.
func (b *book) ruled(name string, is *Policy) *rule {
	if was := b.policies[name]; was != nil {
		delete(b.policies, name)
		keys, _ := labelled('l', was.Namespace, was.selector)
		for _, k := range keys {
			b.selecting.drop(k, func(r *rule) bool { return r == was })
		}
	}
	if is == nil {
		return nil
	}
	r := newRule(is)
	b.policies[name] = r
	keys, _ := labelled('l', r.Namespace, r.selector)
	for _, k := range keys {
		b.selecting.put(k, r)
	}
	return r
}

// rebundle puts a pod of this node behind the chains of the policies that select it now; behind none where none does.
func (b *book) rebundle(l *local) {
	var policies [2][]*rule
	b.selecting.local(l.pod.Namespace, l.pod.Labels, func(r *rule) {
		if !r.selector.Matches(labels.Set(l.pod.Labels)) {
			return
		}
		for way := range policies {
			if directed(&r.Spec, way == in) && !slices.Contains(policies[way], r) {
				policies[way] = append(policies[way], r)
			}
		}
	})
	for way, selected := range policies {
		before := l.chains[way]
		l.chains[way] = ""
		if len(selected) > 0 {
			made := decide(b.family, l.pod, selected, way == in)
			l.chains[way] = made.name(way == in)
			b.use(l.chains[way], made)
		}
		b.release(before)
		b.lead(way, l.pod.IPs[b.family])
	}
}

// lead says through which chain an address goes: that of the pod whose name comes last, where one has it that should have gone.
func (b *book) lead(way int, at netip.Addr) {
	now := ""
	for _, name := range slices.Sorted(maps.Keys(b.at[at])) {
		now = cmp.Or(b.at[at][name].chains[way], now)
	}
	before := b.verdicts[way][at]
	if now == before {
		return
	}
	if first, there := b.was[way][at]; !there {
		b.was[way][at] = before
	} else if first == now {
		delete(b.was[way], at)
	}
	if now == "" {
		delete(b.verdicts[way], at)
	} else {
		b.verdicts[way][at] = now
	}
}

// use counts one more pod behind a chain, and makes the chain where it is the first.
func (b *book) use(name string, made bundle) {
	c := b.chains[name]
	if c == nil {
		c = &chain{rules: made.allowed, sets: slices.Sorted(maps.Keys(made.sets))}
		b.chains[name] = c
		b.newer[name] = true
		for _, s := range c.sets {
			b.need(made.sets[s])
		}
	}
	c.used++
}

// release counts one less. What nobody uses goes when the kernel is told: it may be used again until then.
func (b *book) release(name string) {
	if c := b.chains[name]; c != nil {
		if c.used--; c.used == 0 {
			b.idle = append(b.idle, name)
		}
	}
}

// need counts one more chain that names a set, and fills the set where it is new.
func (b *book) need(s *set) {
	if held := b.sets[s.name]; held != nil {
		held.used++
		return
	}
	s.used, s.members, s.moved = 1, map[span]int{}, map[span]bool{}
	b.sets[s.name] = s
	b.newer[s.name] = true
	if s.ranges != nil {
		return
	}
	for _, p := range s.peers {
		s.keys = append(s.keys, p.of(s.namespace)...)
	}
	if len(s.peers) == 0 {
		s.keys = []key{{of: '*'}}
	}
	s.keys = unique(s.keys)
	for _, k := range s.keys {
		b.asking.put(k, s)
	}
	for name, pods := range b.within {
		space := b.labels(name)
		if len(s.peers) > 0 && !slices.ContainsFunc(s.peers, func(p peer) bool {
			return p.namespaces == nil && name == s.namespace || p.namespaces != nil && p.namespaces.Matches(labels.Set(space))
		}) {
			continue
		}
		for _, pod := range pods {
			s.move(nil, s.of(pod, b.family, space))
		}
	}
}

func unique(keys []key) []key {
	slices.SortFunc(keys, func(a, b key) int {
		return cmp.Or(cmp.Compare(a.of, b.of), strings.Compare(a.namespace, b.namespace), strings.Compare(a.label, b.label), strings.Compare(a.value, b.value))
	})
	return slices.Compact(keys)
}

// delta is what the kernel must be told.
type delta struct {
	setsCome, setsGone     []*set
	come, gone             map[*set][]span // of sets
	chainsCome, chainsGone []string
	toward, away           [2]map[netip.Addr]string // verdicts, by direction
	known, unknown         []netip.Addr
}

// take answers what changed since the last time, or with all what there is.
func (b *book) take(all bool) delta {
	d := delta{come: map[*set][]span{}, gone: map[*set][]span{}, toward: [2]map[netip.Addr]string{{}, {}}, away: [2]map[netip.Addr]string{{}, {}}}
	b.dropIdle(&d)
	if all {
		b.touchAll()
	}
	for _, name := range slices.Sorted(maps.Keys(b.newer)) {
		if c := b.chains[name]; c != nil && (all || !c.held) {
			c.held = true
			d.chainsCome = append(d.chainsCome, name)
		}
		s := b.sets[name]
		if s == nil {
			continue
		}
		if all || !s.held {
			d.setsCome = append(d.setsCome, s)
			d.come[s] = s.spans()
		} else {
			for m := range s.moved {
				if s.members[m] > 0 {
					d.come[s] = append(d.come[s], m)
				} else {
					d.gone[s] = append(d.gone[s], m)
				}
			}
			ordered(d.come[s])
			ordered(d.gone[s])
		}
		s.held = true
		clear(s.moved)
	}
	for way := range b.was {
		for at, before := range b.was[way] {
			if before != "" {
				d.away[way][at] = before
			}
			if now := b.verdicts[way][at]; now != "" {
				d.toward[way][at] = now
			}
		}
		clear(b.was[way])
	}
	for at := range b.known {
		if len(b.at[at]) > 0 {
			d.known = append(d.known, at)
		} else {
			d.unknown = append(d.unknown, at)
		}
	}
	slices.SortFunc(d.known, netip.Addr.Compare)
	slices.SortFunc(d.unknown, netip.Addr.Compare)
	clear(b.known)
	clear(b.newer)
	if all {
		// The kernel is told from nothing on.
		d.setsGone, d.chainsGone, d.unknown, d.away, d.gone = nil, nil, nil, [2]map[netip.Addr]string{}, nil
	}
	return d
}

// dropIdle takes out the chains and sets that nobody uses.
func (b *book) dropIdle(d *delta) {
	for _, name := range b.idle {
		c := b.chains[name]
		if c == nil || c.used > 0 {
			continue
		}
		delete(b.chains, name)
		if c.held {
			d.chainsGone = append(d.chainsGone, name)
		}
		for _, of := range c.sets {
			s := b.sets[of]
			if s.used--; s.used > 0 {
				continue
			}
			delete(b.sets, of)
			for _, k := range s.keys {
				b.asking.drop(k, func(o *set) bool { return o == s })
			}
			if s.held {
				d.setsGone = append(d.setsGone, s)
			}
		}
	}
	b.idle = nil
	slices.Sort(d.chainsGone)
	slices.SortFunc(d.setsGone, func(a, b *set) int { return strings.Compare(a.name, b.name) })
}

func (b *book) touchAll() {
	for name := range b.sets {
		b.newer[name] = true
	}
	for name := range b.chains {
		b.newer[name] = true
	}
	for way := range b.verdicts {
		for at := range b.verdicts[way] {
			b.was[way][at] = ""
		}
	}
	for at := range b.at {
		b.known[at] = true
	}
}

// String prints what the kernel should hold.
func (b *book) String() string {
	var text strings.Builder
	if len(b.at) == 0 {
		return ""
	}
	fmt.Fprintf(&text, "%s known %v\n", []string{"IPv4", "IPv6"}[b.family], slices.SortedFunc(maps.Keys(b.at), netip.Addr.Compare))
	for _, name := range slices.Sorted(maps.Keys(b.sets)) {
		fmt.Fprintf(&text, "  set %s", name)
		for _, s := range b.sets[name].spans() {
			switch {
			case s.port > 0:
				fmt.Fprintf(&text, " %v:%s:%d", s.from, s.protocol, s.port)
			case s.from == s.to:
				fmt.Fprintf(&text, " %v", s.from)
			default:
				fmt.Fprintf(&text, " %v-%v", s.from, s.to)
			}
		}
		text.WriteByte('\n')
	}
	for _, name := range slices.Sorted(maps.Keys(b.chains)) {
		fmt.Fprintf(&text, "  chain %s\n", name)
		for _, m := range b.chains[name].rules {
			fmt.Fprintf(&text, "    %v\n", m)
		}
	}
	for way, word := range []string{"to", "from"} {
		for _, a := range slices.SortedFunc(maps.Keys(b.verdicts[way]), netip.Addr.Compare) {
			fmt.Fprintf(&text, "  %s %v: %s\n", word, a, b.verdicts[way][a])
		}
	}
	return text.String()
}
