package nftables

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/sextant-k8s/sextant/pkg/proxy/desired"
)

const (
	// tableName is upstream's, so that either proxy takes over the other's rules, each in one transaction.
	tableName = "kube-proxy"
	// chunk is how many elements go into a message: its length is told in 16 bits.
	chunk = 400
	// bufferSize holds the largest transaction, which goes to the kernel in one piece.
	bufferSize = 64 << 20
	// countable is up to how many elements a set is counted: the kernel's time to list one grows with its square.
	countable = 20_000
	// clients is how many the affinity map remembers.
	clients = 1 << 18
)

func durationSeconds(n int32) time.Duration { return time.Duration(n) * time.Second }

// Backend writes both families' tables. Not safe for concurrent use.
type Backend struct {
	conn     *nftables.Conn
	families []*kernel
	policy   desired.Policy
	// gen is the kernel's count of changes to anybody's tables when ours were last known to be whole; 0 = that is not known.
	gen     uint32
	commits uint32 // of this Sync
}

// kernel is one family's table.
type kernel struct {
	v6       bool
	beside   bool
	aside    bool // the table that stands in is being written
	fresh    bool // the kernel holds what the last Sync was given
	chains   map[string]int
	hairpins map[string]bool
	claims   map[string]int // of fronts outside the cluster: how many ports want them
	held     map[string]int // elements, by set
}

// New opens the kernel's tables, and says what is wrong where there are none.
func New() (*Backend, error) { return open(false) }

// NewBeside answers a back end for what another one, that leads to endpoints by itself, lacks: it marks and masquerades, refuses where there
// is no endpoint, and guards balancers.
func NewBeside() (*Backend, error) { return open(true) }

func open(beside bool) (*Backend, error) {
	conn, err := nftables.New(nftables.AsLasting(), nftables.WithSockOptions(func(c *netlink.Conn) error {
		return errors.Join(c.SetWriteBuffer(bufferSize), c.SetReadBuffer(bufferSize/8))
	}))
	if err != nil {
		return nil, fmt.Errorf("open nftables: %w", err)
	}
	if _, err := conn.ListTables(); err != nil {
		return nil, fmt.Errorf("list nftables: %w; this kernel has none: use --proxy-mode=iptables", err)
	}
	return &Backend{conn: conn, families: []*kernel{{beside: beside}, {v6: true, beside: beside}}}, nil
}

func (k *kernel) table() *nftables.Table {
	t := &nftables.Table{Name: layout{beside: k.beside}.table(), Family: nftables.TableFamilyIPv4}
	if k.v6 {
		t.Family = nftables.TableFamilyIPv6
	}
	if k.aside {
		t.Name += "-next"
	}
	return t
}

// kernelSet is a set as the library wants it.
func (s set) kernelSet(t *nftables.Table) *nftables.Set {
	join := func(fields []field) nftables.SetDatatype {
		types := make([]nftables.SetDatatype, len(fields))
		for i, f := range fields {
			types[i] = f.datatype()
		}
		if len(types) == 1 {
			return types[0]
		}
		return nftables.MustConcatSetType(types...)
	}
	out := &nftables.Set{Table: t, Name: s.name, KeyType: join(s.key), Concatenation: len(s.key) > 1, Interval: s.ranges, IsMap: s.verdict || s.data != nil}
	switch {
	case s.verdict:
		out.DataType = nftables.TypeVerdict
	case s.data != nil:
		out.DataType = join(s.data)
	}
	if s.dynamic {
		out.Dynamic, out.HasTimeout, out.Size = true, true, clients
	}
	return out
}

// kernelElements are an element as the library wants it: a range in a set of single fields is two.
func (s set) kernelElements(e element) []nftables.SetElement {
	out := nftables.SetElement{Key: []byte(e.key), Val: []byte(e.data)}
	switch {
	case e.end != "" && len(s.key) > 1:
		out.KeyEnd = []byte(e.end)
	case e.end != "":
		end := []byte(e.end)
		for i := len(end) - 1; i >= 0; i-- {
			if end[i]++; end[i] != 0 {
				return []nftables.SetElement{out, {Key: end, IntervalEnd: true}}
			}
		}
	case s.verdict:
		out.VerdictData = &expr.Verdict{Kind: expr.VerdictGoto, Chain: e.verdict}
	}
	return []nftables.SetElement{out}
}

// edit queues elements, set by set, in the sets' order.
func (b *Backend) edit(k *kernel, l layout, elements []element, do func(*nftables.Set, []nftables.SetElement) error, by int) error {
	bySet := map[string][]element{}
	for _, e := range elements {
		bySet[e.set] = append(bySet[e.set], e)
	}
	for _, s := range l.sets() {
		for part := range slices.Chunk(bySet[s.name], chunk) {
			raw := make([]nftables.SetElement, 0, len(part))
			for _, e := range part {
				raw = append(raw, s.kernelElements(e)...)
			}
			if err := do(s.kernelSet(k.table()), raw); err != nil {
				return fmt.Errorf("elements of %s: %w", s.name, err)
			}
		}
		k.held[s.name] += by * len(bySet[s.name])
	}
	return nil
}

// addChains queues chains that are not there yet, and their rules.
func (b *Backend) addChains(k *kernel, chains []chain) {
	t := k.table()
	var made []chain
	for _, c := range chains {
		if _, done := k.chains[c.name]; done {
			continue
		}
		k.chains[c.name] = len(c.rules)
		made = append(made, c)
		raw := &nftables.Chain{Name: c.name, Table: t}
		if c.hook != nil {
			raw.Hooknum, raw.Priority, raw.Type = c.hook, &c.at, c.kind
		}
		b.conn.AddChain(raw)
	}
	for _, c := range made {
		for _, r := range c.rules {
			b.conn.AddRule(&nftables.Rule{Table: t, Chain: &nftables.Chain{Name: c.name, Table: t}, Exprs: r.exprs})
		}
	}
}

// Sync makes the kernel hold the table, of which the changes are what differs from the last Sync, each family in one transaction.
// After an error the next Sync writes everything.
func (b *Backend) Sync(_ context.Context, t *desired.Table, changes []desired.Change) (desired.Written, error) {
	if !b.policy.Equal(t.Policy) {
		b.policy = t.Policy
		for _, k := range b.families {
			k.fresh = false
		}
	}
	// What somebody did since the last look, or does beside the commits of this one, is seen by the next Check only if it counts.
	before, err := generation()
	known := err == nil && before == b.gen
	b.gen, b.commits = 0, 0
	out := desired.Written{Held: map[desired.Place]int{}}
	var errs []error
	for _, k := range b.families {
		mended, err := b.sync(k, t, changes)
		if err != nil {
			k.fresh = false
			errs = append(errs, err)
		}
		if mended {
			out.Mended[desired.Family(k.v6)]++
		}
		at := desired.Place{V6: k.v6, Table: k.table().Name}
		for _, n := range k.held {
			out.Held[at] += n
		}
		for _, n := range k.chains {
			out.Held[at] += n
		}
	}
	if after, err := generation(); err == nil && known && after == before+b.commits {
		b.gen = after
	}
	return out, errors.Join(errs...)
}

// flush commits what was asked for.
func (b *Backend) flush() error {
	err := b.conn.Flush()
	if err == nil {
		b.commits++
	}
	return err
}

// sync answers whether a write of the changes failed, and all was written instead.
func (b *Backend) sync(k *kernel, t *desired.Table, changes []desired.Change) (mended bool, err error) {
	contested := k.fresh && k.claim(changes)
	if k.fresh && !contested {
		err := b.partial(k, layout{Policy: t.Policy, v6: k.v6, beside: k.beside}, changes)
		if err == nil {
			return false, nil
		}
		mended = true
		slog.Info("write everything anew", "reason", err)
	}
	return mended, b.full(k, t)
}

// claim counts the fronts outside the cluster, and says whether two ports want one: then only a look at all ports tells whose it is.
func (k *kernel) claim(changes []desired.Change) bool {
	contested := false
	count := func(p *desired.Port, by int) {
		for _, ip := range slices.Concat(p.ExternalIPs, p.Balancers) {
			key := front(ip, p)
			if by < 0 {
				contested = contested || k.claims[key] > 1
			}
			if k.claims[key] += by; k.claims[key] <= 0 {
				delete(k.claims, key)
			}
			contested = contested || k.claims[key] > 1
		}
	}
	for _, c := range changes {
		for p := range desired.Of(c.Before, k.v6) {
			count(p, -1)
		}
		for p := range desired.Of(c.After, k.v6) {
			count(p, 1)
		}
	}
	return contested
}

func (b *Backend) partial(k *kernel, l layout, changes []desired.Change) error {
	var gone, come, later []element
	before := len(k.chains)
	for _, c := range changes {
		was, is := elements(desired.Of(c.Before, k.v6), k.beside), elements(desired.Of(c.After, k.v6), k.beside)
		less, more := difference(was.elements, is.elements)
		less, wait := parted(c, less)
		gone, come, later = append(gone, less...), append(come, more...), append(later, wait...)
		come = append(come, k.newHairpins(is.hairpins)...)
		for _, name := range slices.Sorted(maps.Keys(is.dispatches)) {
			if _, done := k.chains[name]; !done {
				b.addChains(k, l.chains(is.dispatches[name]))
			}
		}
	}
	if len(k.chains) > before {
		// A packet that was on its way before a transaction sees new elements, but not yet the rules of chains that came with them.
		if err := b.flush(); err != nil {
			return fmt.Errorf("write chains: %w", err)
		}
	}
	for _, step := range [][2][]element{{gone, come}, {later, nil}} {
		if len(step[0])+len(step[1]) == 0 {
			continue
		}
		if err := b.edit(k, l, step[0], b.conn.SetDeleteElements, -1); err != nil {
			return err
		}
		if err := b.edit(k, l, step[1], b.conn.SetAddElements, 1); err != nil {
			return err
		}
		if err := b.flush(); err != nil {
			return err
		}
	}
	return nil
}

// newHairpins answers the elements of pods not met before. They are kept when their pod goes: the next that gets the address needs them again.
func (k *kernel) newHairpins(pairs []string) (out []element) {
	for _, pair := range pairs {
		if !k.hairpins[pair] {
			k.hairpins[pair] = true
			out = append(out, element{set: "hairpins", key: pair})
		}
	}
	return out
}

// full replaces the whole table, whoever made it. Clients that are to stay with their endpoints are carried over.
//
// A packet passes the hooks of the new table before those of the old one, so a single transaction has a moment between them in which neither
// has rules: where there is an old table, a third one stands in meanwhile.
func (b *Backend) full(k *kernel, t *desired.Table) error {
	l := layout{Policy: t.Policy, v6: k.v6, beside: k.beside}
	stay := b.affinity(k, l)
	tables, err := b.conn.ListTablesOfFamily(k.table().Family)
	if err != nil {
		return fmt.Errorf("list tables: %w", err)
	}
	if slices.ContainsFunc(tables, func(t *nftables.Table) bool { return t.Name == k.table().Name }) {
		k.aside = true
		err := b.whole(k, l, t, stay)
		k.aside = false
		if err != nil {
			return err
		}
	}
	if err := b.whole(k, l, t, stay); err != nil {
		return err
	}
	k.fresh = true
	return b.drop(k, true)
}

// drop removes a family's table, if it is there.
func (b *Backend) drop(k *kernel, aside bool) error {
	k.aside = aside
	defer func() { k.aside = false }()
	b.conn.AddTable(k.table())
	b.conn.DelTable(k.table())
	return b.flush()
}

// whole writes a table in one transaction.
func (b *Backend) whole(k *kernel, l layout, t *desired.Table, stay map[string][]nftables.SetElement) error {
	k.chains, k.hairpins, k.claims, k.held = map[string]int{}, map[string]bool{}, map[string]int{}, map[string]int{}
	for p := range t.All(k.v6) {
		for _, ip := range slices.Concat(p.ExternalIPs, p.Balancers) {
			k.claims[front(ip, p)]++
		}
	}
	table := k.table()
	b.conn.AddTable(table)
	b.conn.DelTable(table)
	b.conn.AddTable(table)
	for _, s := range l.sets() {
		if err := b.conn.AddSet(s.kernelSet(table), nil); err != nil {
			return fmt.Errorf("set %s: %w", s.name, err)
		}
	}
	m := elements(t.All(k.v6), k.beside)
	b.addChains(k, l.all(m.dispatches))
	all := slices.Concat(m.elements, l.nodePortIPs(), k.newHairpins(m.hairpins))
	if err := b.edit(k, l, all, b.conn.SetAddElements, 1); err != nil {
		return err
	}
	for _, s := range l.sets() {
		for part := range slices.Chunk(stay[s.name], chunk) {
			if err := b.conn.SetAddElements(s.kernelSet(table), part); err != nil {
				return fmt.Errorf("elements of %s: %w", s.name, err)
			}
		}
	}
	if err := b.flush(); err != nil {
		return fmt.Errorf("write table %s %s: %w", l.ip(), table.Name, err)
	}
	return nil
}

// affinity reads which clients stay with which endpoints, by map; none where there is no such map, or it is another's.
func (b *Backend) affinity(k *kernel, l layout) map[string][]nftables.SetElement {
	out := map[string][]nftables.SetElement{}
	for _, s := range l.sets() {
		if !s.dynamic {
			continue
		}
		shape := s.kernelSet(k.table())
		held, err := b.conn.GetSetByName(k.table(), s.name)
		if err != nil || held.KeyType.Bytes != shape.KeyType.Bytes {
			continue
		}
		list, err := b.conn.GetSetElements(held)
		if err != nil {
			continue
		}
		for _, e := range list {
			if e.Expires > 0 && len(e.Val) == int(shape.DataType.Bytes) {
				out[s.name] = append(out[s.name], nftables.SetElement{Key: e.Key, Val: e.Val, Timeout: e.Expires})
			}
		}
	}
	return out
}

// Check says whether the kernel still holds as many chains, rules and elements as were written. If not, the next Sync writes all again.
func (b *Backend) Check(context.Context) bool {
	gen, err := generation()
	if err == nil && gen == b.gen && b.families[0].fresh && b.families[1].fresh {
		return true
	}
	whole := true
	for _, k := range b.families {
		k.fresh = k.fresh && b.counted(k)
		whole = whole && k.fresh
	}
	if whole && err == nil {
		b.gen = gen
	}
	return whole
}

func (b *Backend) counted(k *kernel) bool {
	table := k.table()
	held, err := b.conn.ListChainsOfTableFamily(table.Family)
	if err != nil {
		return false
	}
	chains := 0
	for _, c := range held {
		if c.Table.Name != table.Name {
			continue
		}
		chains++
		if rules, err := b.conn.GetRules(table, c); err != nil || len(rules) != k.chains[c.Name] {
			return false
		}
	}
	if chains != len(k.chains) {
		return false
	}
	for _, s := range (layout{v6: k.v6}).sets() {
		if s.dynamic || s.ranges || k.held[s.name] > countable {
			continue
		}
		if n, err := count(table, s.name); err != nil || n != k.held[s.name] {
			return false
		}
	}
	return true
}

// count asks the kernel for a set's elements and counts them unread: a large cluster has hundreds of thousands.
func count(t *nftables.Table, set string) (int, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return 0, fmt.Errorf("open nftables: %w", err)
	}
	defer conn.Close() //nolint:errcheck // only read
	names, err := netlink.MarshalAttributes([]netlink.Attribute{
		{Type: unix.NFTA_SET_ELEM_LIST_TABLE, Data: []byte(t.Name + "\x00")}, {Type: unix.NFTA_SET_ELEM_LIST_SET, Data: []byte(set + "\x00")},
	})
	if err != nil {
		return 0, fmt.Errorf("name set %s: %w", set, err)
	}
	answers, err := conn.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETSETELEM, Flags: netlink.Request | netlink.Dump},
		Data:   append([]byte{byte(t.Family), unix.NFNETLINK_V0, 0, 0}, names...),
	})
	if err != nil {
		return 0, fmt.Errorf("list set %s: %w", set, err)
	}
	n := 0
	for _, a := range answers {
		if len(a.Data) < 4 {
			continue
		}
		ad, err := netlink.NewAttributeDecoder(a.Data[4:])
		if err != nil {
			return 0, fmt.Errorf("read set %s: %w", set, err)
		}
		for ad.Next() {
			if ad.Type() == unix.NFTA_SET_ELEM_LIST_ELEMENTS {
				ad.Nested(func(elements *netlink.AttributeDecoder) error {
					n += elements.Len()
					return nil
				})
			}
		}
	}
	return n, nil
}

// generation asks the kernel for its count of changes to anybody's tables.
func generation() (uint32, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return 0, fmt.Errorf("open nftables: %w", err)
	}
	defer conn.Close() //nolint:errcheck // only read
	answers, err := conn.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETGEN, Flags: netlink.Request},
		Data:   []byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, 0},
	})
	if err != nil || len(answers) == 0 || len(answers[0].Data) < 4 {
		return 0, fmt.Errorf("ask for the generation of nftables: %w", err)
	}
	ad, err := netlink.NewAttributeDecoder(answers[0].Data[4:])
	if err != nil {
		return 0, fmt.Errorf("read the generation of nftables: %w", err)
	}
	ad.ByteOrder = binary.BigEndian
	for ad.Next() {
		if ad.Type() == unix.NFTA_GEN_ID {
			return ad.Uint32(), nil
		}
	}
	return 0, errors.New("the kernel does not tell the generation of nftables")
}

// Cleanup removes both tables, if they are there.
func (b *Backend) Cleanup(context.Context) error {
	var errs []error
	for _, k := range b.families {
		k.fresh = false
		errs = append(errs, b.drop(k, false), b.drop(k, true))
	}
	return errors.Join(errs...)
}
