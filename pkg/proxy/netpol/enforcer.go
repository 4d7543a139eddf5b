package netpol

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
)

const (
	tableName = "sextant-policy"
	// chunk is how many elements go into a message: its length is told in 16 bits.
	chunk = 400
	// bufferSize holds the largest transaction, which goes to the kernel in one piece.
	bufferSize = 64 << 20
)

// Enforcer holds the kernel to the policies. Not safe for concurrent use.
type Enforcer struct {
	conn   *nftables.Conn
	books  [2]*book
	within [2]netip.Prefix // this node's pod ranges
	fresh  [2]bool         // the kernel holds what the book does
	clean  bool            // the kernel holds nothing of ours
}

// New opens the kernel's tables.
func New(node string) (*Enforcer, error) {
	conn, err := nftables.New(nftables.AsLasting(), nftables.WithSockOptions(func(c *netlink.Conn) error { return c.SetWriteBuffer(bufferSize) }))
	if err != nil {
		return nil, fmt.Errorf("open nftables for network policies: %w", err)
	}
	if _, err := conn.ListTables(); err != nil {
		return nil, fmt.Errorf("list nftables for network policies: %w; run with --network-policy=false", err)
	}
	return &Enforcer{conn: conn, books: [2]*book{newBook(0, node), newBook(1, node)}}, nil
}

// Sync makes the kernel enforce what the changes lead to, each family in one transaction; within are this node's pod ranges, where known. After an error the
// next writes everything.
func (e *Enforcer) Sync(c Changes, within [2]netip.Prefix) error {
	for _, b := range e.books {
		b.apply(c)
	}
	if len(e.books[0].policies) == 0 {
		// The first time, something may be left from an earlier life.
		if e.clean {
			return nil
		}
		if err := e.Cleanup(); err != nil {
			return err
		}
		e.clean = true
		return nil
	}
	e.clean = false
	var errs []error
	for i := range e.books {
		if err := e.write(i, within[i]); err != nil {
			errs = append(errs, fmt.Errorf("write table %s: %w", tableName, err))
		}
	}
	return errors.Join(errs...)
}

// write makes the kernel hold a family's book. Replacing an old table has a moment in which neither has rules, for packets pass the new one's hooks
// first: another stands in meanwhile.
func (e *Enforcer) write(i int, within netip.Prefix) error {
	w := &writer{conn: e.conn, v6: i == 1, book: e.books[i], within: within}
	whole := !e.fresh[i]
	if !whole && e.within[i] != within {
		w.rebase()
	}
	e.fresh[i], e.within[i] = false, within
	d := w.book.take(whole)
	if !whole {
		w.sync(d, false)
		if err := errors.Join(w.err, e.conn.Flush()); err != nil {
			return err
		}
		e.fresh[i] = true
		return nil
	}
	for _, aside := range []bool{true, false} {
		w.aside = aside
		w.sync(d, true)
		if err := errors.Join(w.err, e.conn.Flush()); err != nil {
			return err
		}
	}
	e.fresh[i] = true
	w.aside = true
	e.conn.DelTable(w.table())
	return e.conn.Flush()
}

// Check says whether the tables are still there. If not, the next Sync writes all again.
func (e *Enforcer) Check() bool {
	whole := true
	for i, b := range e.books {
		if !e.fresh[i] {
			whole = whole && e.clean
			continue
		}
		w := &writer{conn: e.conn, v6: i == 1}
		chains, err := e.conn.ListChainsOfTableFamily(w.table().Family)
		n := 0
		for _, c := range chains {
			if c.Table.Name == tableName {
				n++
			}
		}
		if err != nil || n != len(b.chains)+len(bases) {
			e.fresh[i], whole = false, false
		}
	}
	return whole
}

// Cleanup lets everything through.
func (e *Enforcer) Cleanup() error {
	var errs []error
	for i := range e.books {
		e.fresh[i] = false
		for _, aside := range []bool{false, true} {
			w := &writer{conn: e.conn, v6: i == 1, aside: aside}
			e.conn.AddTable(w.table())
			e.conn.DelTable(w.table())
		}
		errs = append(errs, e.conn.Flush())
	}
	return errors.Join(errs...)
}

// writer queues one family's messages.
type writer struct {
	conn   *nftables.Conn
	v6     bool
	aside  bool // the table that stands in
	book   *book
	within netip.Prefix
	err    error
}

func (w *writer) table() *nftables.Table {
	t := &nftables.Table{Name: tableName, Family: nftables.TableFamilyIPv4}
	if w.v6 {
		t.Family = nftables.TableFamilyIPv6
	}
	if w.aside {
		t.Name += "-next"
	}
	return t
}

func (w *writer) set(name string) *nftables.Set {
	address := nftables.TypeIPAddr
	if w.v6 {
		address = nftables.TypeIP6Addr
	}
	s := &nftables.Set{Table: w.table(), Name: name, KeyType: address}
	switch {
	case name == "ingress" || name == "egress":
		s.IsMap, s.DataType = true, nftables.TypeVerdict
	case name == "selves":
		s.KeyType, s.Concatenation = nftables.MustConcatSetType(address, address), true
	case strings.HasPrefix(name, "block-"):
		s.Interval = true
	case strings.HasPrefix(name, "named-"):
		s.KeyType, s.Concatenation = nftables.MustConcatSetType(address, nftables.TypeInetProto, nftables.TypeInetService), true
	}
	return s
}

var protocols = map[v1.Protocol]byte{v1.ProtocolTCP: unix.IPPROTO_TCP, v1.ProtocolUDP: unix.IPPROTO_UDP, v1.ProtocolSCTP: unix.IPPROTO_SCTP}

// base is a chain with a hook.
type base struct {
	name string
	hook *nftables.ChainHook
	at   nftables.ChainPriority
}

// bases are what passes the node, what pods send to it, and what IPVS passes on: it takes packets at the input, after filters, and sends them as
// the node would, so that input comes after it. What the node itself sends to its pods passes.
var bases = []base{
	{"forward", nftables.ChainHookForward, *nftables.ChainPriorityFilter}, {"input", nftables.ChainHookInput, *nftables.ChainPriorityNATSource + 10},
	{"output", nftables.ChainHookOutput, *nftables.ChainPriorityFilter},
}

// sync queues a delta; with all, into a new table.
func (w *writer) sync(d delta, all bool) {
	t := w.table()
	if all {
		w.conn.AddTable(t)
		w.conn.DelTable(t)
		w.conn.AddTable(t)
		for _, name := range []string{"known", "selves", "ingress", "egress"} {
			w.add(w.conn.AddSet(w.set(name), nil))
		}
		w.baseRules()
	}
	for _, s := range d.setsCome {
		w.add(w.conn.AddSet(w.set(s.name), nil))
	}
	for _, s := range slices.SortedFunc(maps.Keys(d.gone), func(a, b *set) int { return strings.Compare(a.name, b.name) }) {
		w.elements(w.conn.SetDeleteElements, s.name, spans(s.name, d.gone[s]))
	}
	for _, s := range slices.SortedFunc(maps.Keys(d.come), func(a, b *set) int { return strings.Compare(a.name, b.name) }) {
		w.elements(w.conn.SetAddElements, s.name, spans(s.name, d.come[s]))
	}
	for _, name := range d.chainsCome {
		c := w.conn.AddChain(&nftables.Chain{Name: name, Table: t})
		for _, m := range w.book.chains[name].rules {
			w.conn.AddRule(&nftables.Rule{Table: t, Chain: c, Exprs: w.allow(m, strings.HasPrefix(name, "ingress-"))})
		}
		w.conn.AddRule(&nftables.Rule{Table: t, Chain: c, Exprs: []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}}})
	}
	for way, name := range []string{"ingress", "egress"} {
		w.elements(w.conn.SetDeleteElements, name, verdicts(d.away[way]))
		w.elements(w.conn.SetAddElements, name, verdicts(d.toward[way]))
	}
	pairs := func(list []netip.Addr, times int) (out []nftables.SetElement) {
		for _, a := range list {
			out = append(out, nftables.SetElement{Key: slices.Repeat(a.AsSlice(), times)})
		}
		return out
	}
	w.elements(w.conn.SetDeleteElements, "selves", pairs(d.unknown, 2))
	w.elements(w.conn.SetDeleteElements, "known", pairs(d.unknown, 1))
	w.elements(w.conn.SetAddElements, "selves", pairs(d.known, 2))
	// Last, and all in one transaction: nobody is known whose policies are not in place.
	w.elements(w.conn.SetAddElements, "known", pairs(d.known, 1))
	for _, name := range d.chainsGone {
		w.conn.DelChain(&nftables.Chain{Name: name, Table: t})
	}
	for _, s := range d.setsGone {
		w.conn.DelSet(w.set(s.name))
	}
}

// rebase queues the rules of the chains with hooks anew.
func (w *writer) rebase() {
	for _, b := range bases {
		w.conn.FlushChain(&nftables.Chain{Name: b.name, Table: w.table()})
	}
	w.baseRules()
}

func (w *writer) add(err error) { w.err = errors.Join(w.err, err) }

// spans are the elements of a set; a range is two.
func spans(name string, list []span) (out []nftables.SetElement) {
	for _, s := range list {
		key := s.from.AsSlice()
		switch {
		case s.port > 0:
			key = append(append(key, protocols[s.protocol], 0, 0, 0, byte(s.port>>8), byte(s.port)), 0, 0)
			out = append(out, nftables.SetElement{Key: key})
		case strings.HasPrefix(name, "block-"):
			out = append(out, nftables.SetElement{Key: key})
			if end := s.to.Next(); end.IsValid() {
				out = append(out, nftables.SetElement{Key: end.AsSlice(), IntervalEnd: true})
			}
		default:
			out = append(out, nftables.SetElement{Key: key})
		}
	}
	return out
}

// elements queues what comes or goes of a set.
func (w *writer) elements(do func(*nftables.Set, []nftables.SetElement) error, name string, list []nftables.SetElement) {
	for part := range slices.Chunk(list, chunk) {
		w.add(do(w.set(name), part))
	}
}

// verdicts are the elements of a verdict map.
func verdicts(m map[netip.Addr]string) (out []nftables.SetElement) {
	for _, a := range slices.SortedFunc(maps.Keys(m), netip.Addr.Compare) {
		out = append(out, nftables.SetElement{Key: a.AsSlice(), VerdictData: &expr.Verdict{Kind: expr.VerdictJump, Chain: m[a]}})
	}
	return out
}

// Registers of four bytes from which concatenated keys are read.
const reg0 = unix.NFT_REG32_00

func (w *writer) size() uint32 {
	if w.v6 {
		return 16
	}
	return 4
}

func (w *writer) load(source bool, into uint32) expr.Any {
	offset := uint32(16)
	if w.v6 {
		offset = 24
	}
	if source {
		offset -= w.size()
	}
	return &expr.Payload{DestRegister: into, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: w.size()}
}

// baseRules queues the rules of the chains with hooks.
func (w *writer) baseRules() {
	pods := w.within
	t := w.table()
	established := []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATE, Register: unix.NFT_REG_1},
		&expr.Bitwise{SourceRegister: unix.NFT_REG_1, DestRegister: unix.NFT_REG_1, Len: 4,
			Mask: binaryutil.NativeEndian.PutUint32(expr.CtStateBitESTABLISHED | expr.CtStateBitRELATED), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: unix.NFT_REG_1, Data: make([]byte, 4)},
		&expr.Verdict{Kind: expr.VerdictAccept},
	}
	through := func(source bool, name string) []expr.Any {
		return []expr.Any{w.load(source, unix.NFT_REG_1), &expr.Lookup{SourceRegister: unix.NFT_REG_1, SetName: name, IsDestRegSet: true}}
	}
	stranger := func(source bool) []expr.Any {
		mask := make([]byte, w.size())
		for i := range pods.Bits() {
			mask[i/8] |= 0x80 >> (i % 8)
		}
		return []expr.Any{w.load(source, unix.NFT_REG_1),
			&expr.Lookup{SourceRegister: unix.NFT_REG_1, SetName: "known", Invert: true},
			&expr.Bitwise{SourceRegister: unix.NFT_REG_1, DestRegister: unix.NFT_REG_1, Len: w.size(), Mask: mask, Xor: make([]byte, w.size())},
			&expr.Cmp{Op: expr.CmpOpEq, Register: unix.NFT_REG_1, Data: pods.Addr().AsSlice()},
			&expr.Verdict{Kind: expr.VerdictDrop}}
	}
	self := []expr.Any{w.load(true, reg0), w.load(false, reg0+w.size()/4), &expr.Lookup{SourceRegister: reg0, SetName: "selves"}, &expr.Verdict{Kind: expr.VerdictAccept}}
	own := []expr.Any{
		&expr.Fib{Register: unix.NFT_REG_1, ResultADDRTYPE: true, FlagSADDR: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: unix.NFT_REG_1, Data: binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)},
		&expr.Verdict{Kind: expr.VerdictAccept},
	}
	for _, b := range bases {
		c := w.conn.AddChain(&nftables.Chain{Name: b.name, Table: t, Hooknum: b.hook, Priority: &b.at, Type: nftables.ChainTypeFilter})
		rules := [][]expr.Any{established}
		if b.name == "output" {
			rules = append(rules, own)
		}
		if b.name != "input" {
			rules = append(rules, self)
			if pods.IsValid() {
				rules = append(rules, stranger(true), stranger(false))
			}
		}
		rules = append(rules, through(true, "egress"))
		if b.name != "input" {
			rules = append(rules, through(false, "ingress"))
		}
		for _, r := range rules {
			w.conn.AddRule(&nftables.Rule{Table: t, Chain: c, Exprs: r})
		}
	}
}

// allow is a match's rule: it returns to where the other direction is asked.
func (w *writer) allow(m match, ingress bool) []expr.Any {
	var out []expr.Any
	protoAt := reg0 + w.size()/4
	port := []expr.Any{&expr.Payload{DestRegister: protoAt + 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2}}
	protocol := &expr.Meta{Key: expr.MetaKeyL4PROTO, Register: protoAt}
	if m.paired {
		out = append(out, w.load(ingress, reg0), protocol)
		out = append(append(out, port...), &expr.Lookup{SourceRegister: reg0, SetName: m.set})
		return append(out, &expr.Verdict{Kind: expr.VerdictReturn})
	}
	if m.set != "" {
		out = append(out, w.load(ingress, reg0), &expr.Lookup{SourceRegister: reg0, SetName: m.set})
	}
	if m.protocol != "" {
		out = append(out, protocol, &expr.Cmp{Op: expr.CmpOpEq, Register: protoAt, Data: []byte{protocols[m.protocol]}})
	}
	if m.up > 0 {
		out = append(out, port...)
		out = append(out, &expr.Cmp{Op: expr.CmpOpGte, Register: protoAt + 1, Data: binaryutil.BigEndian.PutUint16(m.low)},
			&expr.Cmp{Op: expr.CmpOpLte, Register: protoAt + 1, Data: binaryutil.BigEndian.PutUint16(m.up)})
	}
	return append(out, &expr.Verdict{Kind: expr.VerdictReturn})
}
