package nftables

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/sextant-k8s/sextant/pkg/proxy/desired"
)

// field is a part of a key.
type field int

const (
	addr4 field = iota
	addr6
	proto
	service
	scratch // the number of a place or an endpoint, as the packet carries it
)

func (f field) size() int {
	if f == addr6 {
		return 16
	}
	return 4
}

func (f field) datatype() nftables.SetDatatype {
	return []nftables.SetDatatype{nftables.TypeIPAddr, nftables.TypeIP6Addr, nftables.TypeInetProto, nftables.TypeInetService, nftables.TypeClassID}[f]
}

// set is the shape of a set or map.
type set struct {
	name      string
	key, data []field
	verdict   bool // a verdict map
	ranges    bool // of address ranges
	dynamic   bool // filled by packets, with timeouts
}

// layout is one family's table, apart from its elements.
type layout struct {
	desired.Policy
	v6     bool
	beside bool // another back end leads to endpoints: only marks, masquerading and refusals are here
}

// table is the table's name.
func (l layout) table() string {
	if l.beside {
		return tableName + "-beside"
	}
	return tableName
}

func (l layout) addr() field {
	if l.v6 {
		return addr6
	}
	return addr4
}

// sets are in the order in which they are made.
func (l layout) sets() []set {
	a := l.addr()
	front, node, at := []field{a, proto, service}, []field{proto, service}, []field{a, service}
	with := func(key []field, more ...field) []field { return slices.Concat(key, more) }
	return []set{
		{name: "cluster-ips", key: []field{a}},
		{name: "nodeport-ips", key: []field{a}, ranges: true},
		{name: "services", key: front, verdict: true},
		{name: "nodeports", key: node, verdict: true},
		{name: "endpoints", key: with(front, scratch), data: at},
		{name: "nodeport-endpoints", key: with(node, scratch), data: at},
		{name: "no-endpoints", key: front, verdict: true},
		{name: "no-endpoint-nodeports", key: node, verdict: true},
		{name: "firewalled", key: front},
		{name: "allowed", key: with(front, a), ranges: true},
		{name: "places", key: with(front, scratch), data: []field{scratch}},
		{name: "nodeport-places", key: with(node, scratch), data: []field{scratch}},
		{name: "alive", key: with(front, scratch), data: at},
		{name: "nodeport-alive", key: with(node, scratch), data: at},
		{name: "living", key: with(front, scratch)}, // older kernels look into a map only for its answer
		{name: "nodeport-living", key: with(node, scratch)},
		{name: "affinity", key: with([]field{a}, front...), data: []field{scratch}, dynamic: true},
		{name: "nodeport-affinity", key: with([]field{a}, node...), data: []field{scratch}, dynamic: true},
		{name: "hairpins", key: []field{a, a}},
		{name: "served", key: front},
	}
}

func (l layout) half(pair [2]netip.Prefix) netip.Prefix { return pair[desired.Family(l.v6)] }

// rule is a rule in words, and as the kernel takes it.
type rule struct {
	text  string
	exprs []expr.Any
}

// chain is a chain; base chains have a hook.
type chain struct {
	name  string
	hook  *nftables.ChainHook
	at    nftables.ChainPriority
	kind  nftables.ChainType
	rules []rule
}

// piece is a part of a rule.
type piece struct {
	text  string
	exprs []expr.Any
}

func join(pieces ...piece) rule {
	var r rule
	var words []string
	for _, p := range pieces {
		if p.text != "" {
			words = append(words, p.text)
		}
		r.exprs = append(r.exprs, p.exprs...)
	}
	r.text = strings.Join(words, " ")
	return r
}

// Registers of four bytes, 16 in all. A key of the affinity map begins with the client's address, one of a front after it.
const reg0 = unix.NFT_REG32_00

func (l layout) words() uint32 { return uint32(l.addr().size() / 4) }

// Where a front's parts are put: the client's address, the front, and what is found.
func (l layout) client() uint32  { return reg0 }
func (l layout) target() uint32  { return reg0 + l.words() }
func (l layout) protoAt() uint32 { return reg0 + 2*l.words() }
func (l layout) portAt() uint32  { return l.protoAt() + 1 }
func (l layout) found() uint32   { return l.portAt() + 1 }

// offsets of source and destination in the network header.
func (l layout) load(source bool, into uint32) expr.Any {
	offset, size := uint32(16), uint32(4)
	if l.v6 {
		offset, size = 24, 16
	}
	if source {
		offset -= size
	}
	return &expr.Payload{DestRegister: into, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: size}
}

func (l layout) protocolPort() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: l.protoAt()},
		&expr.Payload{DestRegister: l.portAt(), Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
	}
}

func (l layout) ip() string {
	if l.v6 {
		return "ip6"
	}
	return "ip"
}

func (l layout) frontText(node bool) string {
	if node {
		return "meta l4proto . th dport"
	}
	return l.ip() + " daddr . meta l4proto . th dport"
}

// front is by what clients reach a port: an address, or at a node port any of the node's.
func (l layout) front(node bool) piece {
	exprs := l.protocolPort()
	if !node {
		exprs = append([]expr.Any{l.load(false, l.target())}, exprs...)
	}
	return piece{l.frontText(node), exprs}
}

func lookup(from uint32, set string, not bool) expr.Any {
	return &expr.Lookup{SourceRegister: from, SetName: set, Invert: not}
}

// vmap goes where the map says.
func vmap(from uint32, set string) expr.Any {
	return &expr.Lookup{SourceRegister: from, SetName: set, DestRegister: 0, IsDestRegSet: true}
}

func verdict(kind expr.VerdictKind, to string) piece {
	word := map[expr.VerdictKind]string{expr.VerdictGoto: "goto " + to, expr.VerdictJump: "jump " + to, expr.VerdictReturn: "return", expr.VerdictDrop: "drop", expr.VerdictAccept: "accept"}[kind]
	return piece{word, []expr.Any{&expr.Verdict{Kind: kind, Chain: to}}}
}

// addressIn matches source or destination against a prefix.
func (l layout) addressIn(source, not bool, p netip.Prefix) piece {
	size := l.addr().size()
	mask := make([]byte, size)
	for i := range p.Bits() {
		mask[i/8] |= 0x80 >> (i % 8)
	}
	op, bang, side := expr.CmpOpEq, "", "daddr"
	if not {
		op, bang = expr.CmpOpNeq, "!= "
	}
	if source {
		side = "saddr"
	}
	return piece{fmt.Sprintf("%s %s %s%v", l.ip(), side, bang, p), []expr.Any{
		l.load(source, unix.NFT_REG_1),
		&expr.Bitwise{SourceRegister: unix.NFT_REG_1, DestRegister: unix.NFT_REG_1, Len: uint32(size), Mask: mask, Xor: make([]byte, size)},
		&expr.Cmp{Op: op, Register: unix.NFT_REG_1, Data: p.Addr().AsSlice()},
	}}
}

// inside matches traffic from pods, or with not any other; ok is false where nothing is known to be inside.
func (l layout) inside(not bool) (piece, bool) {
	if name := l.InsideLink; name != "" {
		op, bang := expr.CmpOpEq, ""
		if not {
			op, bang = expr.CmpOpNeq, "!= "
		}
		data := append([]byte(name), make([]byte, max(0, 16-len(name)))...)
		if prefix, any := strings.CutSuffix(name, "+"); any {
			data, name = []byte(prefix), prefix+"*"
		}
		return piece{fmt.Sprintf("iifname %s%q", bang, name), []expr.Any{
			&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: unix.NFT_REG_1}, &expr.Cmp{Op: op, Register: unix.NFT_REG_1, Data: data},
		}}, true
	}
	if p := l.half(l.Inside); p.IsValid() {
		return l.addressIn(true, not, p), true
	}
	return piece{}, false
}

// addressType matches by what the address is to this node.
func (l layout) addressType(source bool, kind uint32, not bool) piece {
	op, words := expr.CmpOpEq, ""
	if not {
		op, words = expr.CmpOpNeq, "!= "
	}
	side := "daddr"
	if source {
		side = "saddr"
	}
	return piece{fmt.Sprintf("fib %s type %s%s", side, words, map[uint32]string{unix.RTN_LOCAL: "local", unix.RTN_MULTICAST: "multicast"}[kind]), []expr.Any{
		&expr.Fib{Register: unix.NFT_REG_1, ResultADDRTYPE: true, FlagDADDR: !source, FlagSADDR: source},
		&expr.Cmp{Op: op, Register: unix.NFT_REG_1, Data: binaryutil.NativeEndian.PutUint32(kind)},
	}}
}

func (l layout) markMasquerade() piece {
	return piece{fmt.Sprintf("meta mark set mark or %#x", l.Mark()), []expr.Any{
		&expr.Meta{Key: expr.MetaKeyMARK, Register: unix.NFT_REG_1},
		&expr.Bitwise{SourceRegister: unix.NFT_REG_1, DestRegister: unix.NFT_REG_1, Len: 4,
			Mask: binaryutil.NativeEndian.PutUint32(^l.Mark()), Xor: binaryutil.NativeEndian.PutUint32(l.Mark())},
		&expr.Meta{Key: expr.MetaKeyMARK, Register: unix.NFT_REG_1, SourceRegister: true},
	}}
}

func stateNew() piece {
	return piece{"ct state new", []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATE, Register: unix.NFT_REG_1},
		&expr.Bitwise{SourceRegister: unix.NFT_REG_1, DestRegister: unix.NFT_REG_1, Len: 4,
			Mask: binaryutil.NativeEndian.PutUint32(expr.CtStateBitNEW), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: unix.NFT_REG_1, Data: make([]byte, 4)},
	}}
}

func masquerade() piece {
	return piece{"masquerade fully-random", []expr.Any{&expr.Masq{FullyRandom: true}}}
}

// nodePorts are the matches of the addresses that answer node ports: one rule for each.
func (l layout) nodePorts() []piece {
	if l.NodePortsAll {
		// Not 127.0.0.0/8: answering there would need route_localnet, which opens the host's own services to neighbours.
		loopback := netip.MustParsePrefix("127.0.0.0/8")
		if l.v6 {
			loopback = netip.MustParsePrefix("::1/128")
		}
		p, q := l.addressIn(false, true, loopback), l.addressType(false, unix.RTN_LOCAL, false)
		return []piece{{p.text + " " + q.text, append(p.exprs, q.exprs...)}}
	}
	return []piece{{l.ip() + " daddr @nodeport-ips", []expr.Any{l.load(false, unix.NFT_REG_1), lookup(unix.NFT_REG_1, "nodeport-ips", false)}}}
}

// bases are the chains that are there whatever the Services are; those that others go to come first.
func (l layout) bases() []chain {
	front, nodeFront := l.front(false), l.front(true)
	through := func(at uint32, name string) piece { return piece{"vmap @" + name, []expr.Any{vmap(at, name)}} }
	cluster := piece{l.ip() + " daddr @cluster-ips", []expr.Any{l.load(false, unix.NFT_REG_1), lookup(unix.NFT_REG_1, "cluster-ips", false)}}

	unreachable := &expr.Reject{Type: unix.NFT_REJECT_ICMP_UNREACH, Code: 3}
	if l.v6 {
		unreachable.Code = 4
	}
	// Named so that nft reads what it lists: its own words are no names.
	reject := chain{name: "do-reject", rules: []rule{join(piece{"reject", []expr.Any{unreachable}})}}
	drop := chain{name: "do-drop", rules: []rule{join(verdict(expr.VerdictDrop, ""))}}

	nat := chain{name: "serve"}
	if l.MasqueradeAll {
		nat.rules = append(nat.rules, join(cluster, l.markMasquerade()))
	} else if outside, ok := l.inside(true); ok {
		nat.rules = append(nat.rules, join(outside, cluster, l.markMasquerade()))
	}
	nat.rules = append(nat.rules, join(front, through(l.target(), "services")))
	refuse := chain{name: "refuse", rules: []rule{join(front, through(l.target(), "no-endpoints"))}}
	for _, on := range l.nodePorts() {
		nat.rules = append(nat.rules, join(on, nodeFront, through(l.protoAt(), "nodeports")))
		refuse.rules = append(refuse.rules, join(on, nodeFront, through(l.protoAt(), "no-endpoint-nodeports")))
	}
	if l.beside {
		// Packets are still on their way to the cluster IP, where they will be led on.
		refuse.rules = append(refuse.rules, join(front, piece{"@served", []expr.Any{lookup(l.target(), "served", false)}}, verdict(expr.VerdictReturn, "")))
	}
	// What still goes to a cluster IP asks for a port that no Service has there.
	refuse.rules = append(refuse.rules, join(cluster, verdict(expr.VerdictGoto, "do-reject")))

	guard := chain{name: "guard", rules: []rule{join(front, piece{"@firewalled", []expr.Any{lookup(l.target(), "firewalled", false)}},
		// The source goes where an endpoint would: behind the front.
		piece{l.frontText(false) + " . " + l.ip() + " saddr != @allowed", []expr.Any{l.load(true, l.found()), lookup(l.target(), "allowed", true)}},
		verdict(expr.VerdictDrop, ""))}}

	post := chain{name: "post", hook: nftables.ChainHookPostrouting, at: *nftables.ChainPriorityNATSource, kind: nftables.ChainTypeNAT}
	if mine, all := l.half(l.NodePods), l.half(l.Pods); mine.IsValid() && all.IsValid() {
		// Pods are known by their own address inside, and by the node's outside.
		post.rules = append(post.rules, join(l.addressIn(true, false, mine), l.addressIn(false, true, all), l.addressType(false, unix.RTN_MULTICAST, true), masquerade()))
	}
	translated := piece{"ct status dnat", []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATUS, Register: unix.NFT_REG_1},
		&expr.Bitwise{SourceRegister: unix.NFT_REG_1, DestRegister: unix.NFT_REG_1, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(32), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: unix.NFT_REG_1, Data: make([]byte, 4)},
	}}
	if l.beside {
		translated = piece{} // IPVS does not say so
	}
	post.rules = append(post.rules,
		// A pod that reaches itself through its Service must not see its own address as the client's.
		join(translated, piece{l.ip() + " saddr . " + l.ip() + " daddr @hairpins", []expr.Any{l.load(true, l.client()), l.load(false, l.target()), lookup(l.client(), "hairpins", false)}}, masquerade()),
		join(piece{fmt.Sprintf("meta mark & %#x != 0", l.Mark()), []expr.Any{
			&expr.Meta{Key: expr.MetaKeyMARK, Register: unix.NFT_REG_1},
			&expr.Bitwise{SourceRegister: unix.NFT_REG_1, DestRegister: unix.NFT_REG_1, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(l.Mark()), Xor: make([]byte, 4)},
			&expr.Cmp{Op: expr.CmpOpNeq, Register: unix.NFT_REG_1, Data: make([]byte, 4)},
		}}, piece{fmt.Sprintf("meta mark set mark xor %#x", l.Mark()), []expr.Any{
			&expr.Meta{Key: expr.MetaKeyMARK, Register: unix.NFT_REG_1},
			&expr.Bitwise{SourceRegister: unix.NFT_REG_1, DestRegister: unix.NFT_REG_1, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(^uint32(0)), Xor: binaryutil.NativeEndian.PutUint32(l.Mark())},
			&expr.Meta{Key: expr.MetaKeyMARK, Register: unix.NFT_REG_1, SourceRegister: true},
		}}, masquerade()))

	at, kind := *nftables.ChainPriorityNATDest, nftables.ChainTypeNAT
	if l.beside {
		at, kind = *nftables.ChainPriorityMangle, nftables.ChainTypeFilter
	}
	out := []chain{reject, drop, nat, refuse, guard}
	for _, h := range []struct {
		name string
		hook *nftables.ChainHook
		at   nftables.ChainPriority
		kind nftables.ChainType
		to   string
		when []piece
	}{
		{"nat-prerouting", nftables.ChainHookPrerouting, at, kind, "serve", nil},
		{"nat-output", nftables.ChainHookOutput, at, kind, "serve", nil},
		{"guard-prerouting", nftables.ChainHookPrerouting, *nftables.ChainPriorityNATDest - 10, nftables.ChainTypeFilter, "guard", []piece{stateNew()}},
		{"guard-output", nftables.ChainHookOutput, *nftables.ChainPriorityNATDest - 10, nftables.ChainTypeFilter, "guard", []piece{stateNew()}},
		{"filter-input", nftables.ChainHookInput, *nftables.ChainPriorityFilter, nftables.ChainTypeFilter, "refuse", []piece{stateNew()}},
		{"filter-forward", nftables.ChainHookForward, *nftables.ChainPriorityFilter, nftables.ChainTypeFilter, "refuse", []piece{stateNew()}},
		{"filter-output", nftables.ChainHookOutput, *nftables.ChainPriorityFilter, nftables.ChainTypeFilter, "refuse", []piece{stateNew()}},
	} {
		out = append(out, chain{name: h.name, hook: h.hook, at: h.at, kind: h.kind, rules: []rule{join(append(h.when, verdict(expr.VerdictJump, h.to))...)}})
	}
	return append(out, post)
}

// chains are those of a dispatch, the one gone to first.
func (l layout) chains(d dispatch) []chain {
	c := chain{name: d.name()}
	if l.beside {
		mark := l.markMasquerade()
		if d.outerLocal {
			own := l.addressType(true, unix.RTN_LOCAL, false)
			mark = piece{own.text + " " + mark.text, append(own.exprs, mark.exprs...)}
		}
		c.rules = []rule{join(mark)}
		return []chain{c}
	}
	if d.out || d.outerLocal {
		within := d.within()
		onward := verdict(expr.VerdictGoto, within.name())
		if !d.outerLocal {
			c.rules = []rule{join(l.markMasquerade(), onward)}
			return append(l.chains(within), c)
		}
		if inside, ok := l.inside(false); ok {
			c.rules = append(c.rules, join(inside, onward))
		}
		own := l.addressType(true, unix.RTN_LOCAL, false)
		c.rules = append(c.rules, join(own, l.markMasquerade(), onward))
		if d.local > 0 {
			c.rules = append(c.rules, l.pick(d, d.local, localPlaces)...)
		}
		return append(l.chains(within), c)
	}
	c.rules = l.pick(d, d.all, 0)
	return []chain{c}
}

// nodePortIPs are the elements of the set of that name.
func (l layout) nodePortIPs() []element {
	var out []element
	if l.NodePortsAll {
		return nil
	}
	for _, p := range l.NodePortsOn {
		if p.Addr().Is6() == l.v6 {
			out = append(out, element{set: "nodeport-ips", key: address(p.Addr()), end: address(last(p))})
		}
	}
	return out
}

// all are the chains of the table, those gone to before those that go.
func (l layout) all(dispatches map[string]dispatch) []chain {
	out := l.bases()
	done := map[string]bool{}
	for _, name := range slices.Sorted(maps.Keys(dispatches)) {
		for _, c := range l.chains(dispatches[name]) {
			if !done[c.name] {
				done[c.name] = true
				out = append(out, c)
			}
		}
	}
	return out
}

// print writes the table in words.
func (l layout) print(b *strings.Builder, m made) {
	fmt.Fprintf(b, "table %s %s {\n", l.ip(), l.table())
	all := slices.Concat(m.elements, l.nodePortIPs())
	for _, h := range m.hairpins {
		all = append(all, element{set: "hairpins", key: h})
	}
	for _, s := range l.sets() {
		var lines []string
		for _, e := range all {
			if e.set != s.name {
				continue
			}
			line := text(s.key, e.key)
			if e.end != "" {
				line += " to " + text(s.key, e.end)
			}
			switch {
			case s.verdict:
				line += " : " + e.verdict
			case s.data != nil:
				line += " : " + text(s.data, e.data)
			}
			lines = append(lines, line)
		}
		slices.Sort(lines)
		for _, line := range lines {
			fmt.Fprintf(b, "  %s %s\n", s.name, line)
		}
	}
	for _, c := range l.all(m.dispatches) {
		fmt.Fprintf(b, "  chain %s", c.name)
		if c.hook != nil {
			fmt.Fprintf(b, " (%s, hook %d, priority %d)", c.kind, *c.hook, c.at)
		}
		b.WriteString("\n")
		for _, r := range c.rules {
			fmt.Fprintf(b, "    %s\n", r.text)
		}
	}
	b.WriteString("}\n")
}
