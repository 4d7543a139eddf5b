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
	conn *nftables.Conn
	held [2]*familyPlan // what the kernel holds; nil where that is not known, or nothing
	said Plan
}

// New opens the kernel's tables.
func New() (*Enforcer, error) {
	conn, err := nftables.New(nftables.AsLasting(), nftables.WithSockOptions(func(c *netlink.Conn) error { return c.SetWriteBuffer(bufferSize) }))
	if err != nil {
		return nil, fmt.Errorf("open nftables for network policies: %w", err)
	}
	if _, err := conn.ListTables(); err != nil {
		return nil, fmt.Errorf("list nftables for network policies: %w; run with --network-policy=false", err)
	}
	return &Enforcer{conn: conn}, nil
}

// Sync makes the kernel enforce the snapshot's policies, each family in one transaction. After an error the next writes everything.
func (e *Enforcer) Sync(s Snapshot) error {
	p := decide(s)
	if !p.Active {
		if !e.said.Active && e.said.Families[0].Sets == nil {
			// The first time, something may be left from an earlier life.
			e.said.Families[0].Sets = map[string][]span{}
			return e.Cleanup()
		}
		if e.said.Active {
			e.said.Active = false
			return e.Cleanup()
		}
		return nil
	}
	e.said = p
	var errs []error
	for i := range p.Families {
		if err := e.write(i, &p.Families[i]); err != nil {
			errs = append(errs, fmt.Errorf("write table %s: %w", tableName, err))
		}
	}
	return errors.Join(errs...)
}

// write makes the kernel hold a family's plan. Replacing an old table has a moment in which neither has rules, for packets pass the new one's hooks
// first: another stands in meanwhile.
func (e *Enforcer) write(i int, f *familyPlan) error {
	w := &writer{conn: e.conn, v6: i == 1}
	was := e.held[i]
	e.held[i] = nil
	if was != nil {
		w.sync(was, f)
		if err := errors.Join(w.err, e.conn.Flush()); err != nil {
			return err
		}
		e.held[i] = f
		return nil
	}
	next := &writer{conn: e.conn, v6: w.v6, aside: true}
	next.sync(nil, f)
	if err := errors.Join(next.err, e.conn.Flush()); err != nil {
		return err
	}
	w.sync(nil, f)
	if err := errors.Join(w.err, e.conn.Flush()); err != nil {
		return err
	}
	e.held[i] = f
	e.conn.DelTable(next.table())
	return e.conn.Flush()
}

// Check says whether the tables are still there. If not, the next Sync writes all again.
func (e *Enforcer) Check() bool {
	whole := true
	for i, held := range e.held {
		if held == nil {
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
		if err != nil || n != len(held.Chains)+len(bases) {
			e.held[i], whole = nil, false
		}
	}
	return whole
}

// Cleanup lets everything through.
func (e *Enforcer) Cleanup() error {
	var errs []error
	for i := range e.held {
		e.held[i] = nil
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
	conn  *nftables.Conn
	v6    bool
	aside bool // the table that stands in
	err   error
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

// sync queues what leads from one plan to the other; without the first, everything.
func (w *writer) sync(was, is *familyPlan) {
	t := w.table()
	if was == nil {
		was = &familyPlan{}
		w.conn.AddTable(t)
		w.conn.DelTable(t)
		w.conn.AddTable(t)
		for _, name := range []string{"known", "selves", "ingress", "egress"} {
			w.add(w.conn.AddSet(w.set(name), nil))
		}
		w.baseRules(is.Pods)
	} else if was.Pods != is.Pods {
		for _, b := range bases {
			w.conn.FlushChain(&nftables.Chain{Name: b.name, Table: t})
		}
		w.baseRules(is.Pods)
	}
	for _, name := range slices.Sorted(maps.Keys(is.Sets)) {
		old, there := was.Sets[name]
		if !there {
			w.add(w.conn.AddSet(w.set(name), nil))
		}
		w.spans(name, old, is.Sets[name])
	}
	for _, name := range slices.Sorted(maps.Keys(is.Chains)) {
		// A chain is named after its rules: one that is there needs nothing.
		if _, there := was.Chains[name]; there {
			continue
		}
		c := w.conn.AddChain(&nftables.Chain{Name: name, Table: t})
		for _, m := range is.Chains[name] {
			w.conn.AddRule(&nftables.Rule{Table: t, Chain: c, Exprs: w.allow(m, strings.HasPrefix(name, "ingress-"))})
		}
		w.conn.AddRule(&nftables.Rule{Table: t, Chain: c, Exprs: []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}}})
	}
	w.verdicts("egress", was.Egress, is.Egress)
	w.verdicts("ingress", was.Ingress, is.Ingress)
	known := func(p *familyPlan) (one, two []nftables.SetElement) {
		for _, a := range p.Known {
			one = append(one, nftables.SetElement{Key: a.AsSlice()})
			two = append(two, nftables.SetElement{Key: append(a.AsSlice(), a.AsSlice()...)})
		}
		return one, two
	}
	hadKnown, hadSelves := known(was)
	isKnown, isSelves := known(is)
	w.elements("selves", hadSelves, isSelves)
	// Last, and all in one transaction: nobody is known whose policies are not in place.
	w.elements("known", hadKnown, isKnown)
	for name := range was.Chains {
		if _, stays := is.Chains[name]; !stays {
			w.conn.DelChain(&nftables.Chain{Name: name, Table: t})
		}
	}
	for name := range was.Sets {
		if _, stays := is.Sets[name]; !stays {
			w.conn.DelSet(w.set(name))
		}
	}
}

func (w *writer) add(err error) { w.err = errors.Join(w.err, err) }

// spans queues the difference of a set's elements; ranges are written anew.
func (w *writer) spans(name string, was, is []span) {
	raw := func(spans []span) (out []nftables.SetElement) {
		for _, s := range spans {
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
	if !strings.HasPrefix(name, "block-") {
		w.elements(name, raw(was), raw(is))
	} else if !slices.Equal(was, is) {
		if len(was) > 0 {
			w.conn.FlushSet(w.set(name))
		}
		w.elements(name, nil, raw(is))
	}
}

// elements queues the difference of a set.
func (w *writer) elements(name string, was, is []nftables.SetElement) {
	// The start and the end of touching ranges may share an address.
	id := func(e nftables.SetElement) string { return fmt.Sprint(string(e.Key), e.IntervalEnd, e.VerdictData) }
	had := map[string]nftables.SetElement{}
	for _, e := range was {
		had[id(e)] = e
	}
	var come, gone []nftables.SetElement
	for _, e := range is {
		if _, there := had[id(e)]; there {
			delete(had, id(e))
			continue
		}
		come = append(come, e)
	}
	for _, key := range slices.Sorted(maps.Keys(had)) {
		gone = append(gone, had[key])
	}
	for part := range slices.Chunk(gone, chunk) {
		w.add(w.conn.SetDeleteElements(w.set(name), part))
	}
	for part := range slices.Chunk(come, chunk) {
		w.add(w.conn.SetAddElements(w.set(name), part))
	}
}

// verdicts queues the difference of a verdict map.
func (w *writer) verdicts(name string, was, is map[netip.Addr]string) {
	raw := func(m map[netip.Addr]string) (out []nftables.SetElement) {
		for _, a := range slices.SortedFunc(maps.Keys(m), netip.Addr.Compare) {
			out = append(out, nftables.SetElement{Key: a.AsSlice(), VerdictData: &expr.Verdict{Kind: expr.VerdictJump, Chain: m[a]}})
		}
		return out
	}
	w.elements(name, raw(was), raw(is))
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
func (w *writer) baseRules(pods netip.Prefix) {
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
