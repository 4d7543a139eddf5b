package rules

import "math"

// fewDomains are looked through for the least sum; more are kept ranked.
const fewDomains = 256

// absent marks a row that does not count; sums themselves may be negative.
const absent = math.MinInt32

// counter keeps, row by row, how many standing pods some rule means. The pods of a class count alike, so each class knows the
// counters that mean it, and a pod that comes or goes costs only those.
type counter struct {
	name    string
	weight  func(*Class) int64
	staying bool // pods that are leaving do not count
	rows    []int32
	users   int // views
	dropped bool
}

type counted struct {
	by     *counter
	weight int64
}

func (k *counter) add(r int32, n int64) {
	k.rows[r] += int32(n)
}

// counter answers the counter of a name, made now if need be. Among are the only classes whose weight can be other than 0.
func (t *Table) counter(name string, staying bool, among map[*Class]struct{}, weight func(*Class) int64) *counter {
	if k := t.counters[name]; k != nil {
		return k
	}
	k := &counter{name: name, weight: weight, staying: staying, rows: make([]int32, len(t.rows))}
	t.counters[name] = k
	for c := range among {
		w := weight(c)
		if w == 0 {
			continue
		}
		c.counted = append(c.counted, counted{k, w})
		for _, p := range c.members {
			if !p.Leaving || !staying {
				k.add(p.row, w)
			}
		}
	}
	return k
}

// leave says that a view reads the counter no more; without readers it is dropped, and the classes forget it when they next count.
func (t *Table) leave(k *counter) {
	if k.users--; k.users <= 0 && t.counters[k.name] == k {
		delete(t.counters, k.name)
		k.dropped = true
	}
}

// known answers all classes, as the set a counter is made from.
func (t *Table) known() map[*Class]struct{} {
	all := make(map[*Class]struct{}, len(t.classes))
	for _, c := range t.classes {
		all[c] = struct{}{}
	}
	return all
}

// topology numbers the values of a node label, its domains.
type topology struct {
	key    string
	ids    map[string]int32
	of     []int32 // by row; -1 without the label
	nodes  []int32 // by domain
	shared int     // nodes beyond the first of their domain
}

func (t *Table) topology(key string) *topology {
	o := t.topologies[key]
	if o == nil {
		o = &topology{key: key, ids: map[string]int32{}, of: make([]int32, len(t.rows))}
		for r := range t.rows {
			o.of[r] = -1
			if n := t.rows[r].node; n != nil {
				o.set(int32(r), n.Labels)
			}
		}
		t.topologies[key] = o
	}
	return o
}

// unique says that every node is a domain of its own, as with host names.
func (o *topology) unique() bool { return o.shared == 0 }

func (o *topology) set(r int32, l map[string]string) {
	if old := o.of[r]; old >= 0 {
		if o.nodes[old]--; o.nodes[old] > 0 {
			o.shared--
		}
		o.of[r] = -1
	}
	value, ok := l[o.key]
	if !ok {
		return
	}
	id, ok := o.ids[value]
	if !ok {
		id = int32(len(o.nodes))
		o.ids[value] = id
		o.nodes = append(o.nodes, 0)
	}
	if o.nodes[id]++; o.nodes[id] > 1 {
		o.shared++
	}
	o.of[r] = id
}

// tally sums a counter by domain over the rows that a rule lets count. It belongs to one view and sees a row as it was when the
// view last looked at it.
type tally struct {
	from *counter
	key  *topology
	// allows says which rows with the key count; nil is all.
	allows func(r int32) bool
	// own counts the pods of the row alone, whatever domain it is in.
	own bool
	// ranks tells the least sum; only kept up where asked for.
	ranks bool

	seen    []sight // by row; with own none
	sum     []int64 // by domain; where every row is one, what was seen of it is the sum
	rows    []int32 // by domain, those that count
	domains int     // with rows that count
	total   int64
	spectre []int32 // with ranks: how many domains have which sum
	slot    int     // in a place's tuple: the domain, or with own or a unique key the sum itself
	inline  bool    // the slot is the sum

	before sight // while a row is probed: what was seen of it
}

// sight is what a tally saw of a row: the counter's number, or absent, and the domain.
type sight struct{ n, home int32 }

func (y *tally) grow(rows int) {
	if y.seen == nil {
		y.seen = make([]sight, 0, rows)
	}
	for len(y.seen) < rows && !y.own {
		y.seen = append(y.seen, sight{absent, -1})
	}
	for len(y.sum) < len(y.key.nodes) && !y.inline {
		y.sum, y.rows = append(y.sum, 0), append(y.rows, 0)
	}
}

// look brings the tally up to what the table says of a row now.
func (y *tally) look(r int32, live bool) {
	if y.own {
		return
	}
	now := sight{absent, -1}
	if live {
		if now.home = y.key.of[r]; now.home >= 0 && (y.allows == nil || y.allows(r)) {
			now.n = y.from.rows[r]
		}
	}
	y.put(r, now)
}

func (y *tally) put(r int32, now sight) {
	if int(r) >= len(y.seen) || !y.inline && len(y.sum) < len(y.key.nodes) {
		y.grow(int(r) + 1)
	}
	old := y.seen[r]
	if old == now {
		return
	}
	if old.n != absent {
		y.move(old.home, int64(old.n), -1)
	}
	if now.n != absent {
		y.move(now.home, int64(now.n), 1)
	}
	y.seen[r] = now
}

func (y *tally) move(home int32, n int64, rows int32) {
	y.total += n * int64(rows)
	if y.inline {
		y.domains += int(rows)
		y.rank(n, rows)
		return
	}
	if y.rows[home] > 0 {
		y.domains--
		y.rank(y.sum[home], -1)
	}
	y.sum[home] += n * int64(rows)
	y.rows[home] += rows
	if y.rows[home] > 0 {
		y.domains++
		y.rank(y.sum[home], 1)
	}
}

// rank counts by more domains with a sum.
func (y *tally) rank(sum int64, by int32) {
	if !y.ranks {
		return
	}
	for int64(len(y.spectre)) <= sum {
		y.spectre = append(y.spectre, 0)
	}
	y.spectre[sum] += by
}

// least answers the smallest sum of any domain, and whether there is a domain at all.
func (y *tally) least() (int64, bool) {
	if y.domains == 0 {
		return 0, false
	}
	if !y.inline && len(y.sum) <= fewDomains {
		least := int64(math.MaxInt64)
		for d, n := range y.sum {
			if y.rows[d] > 0 {
				least = min(least, n)
			}
		}
		return least, true
	}
	for n, domains := range y.spectre {
		if domains > 0 {
			return int64(n), true
		}
	}
	return 0, false
}

// encode is the tally's number in the tuple of the place of a row.
func (y *tally) encode(r int32) int32 {
	d := y.key.of[r]
	switch {
	case d < 0:
		return absent
	case y.own:
		return y.from.rows[r]
	case y.inline && y.seen[r].n == absent:
		return 0
	case y.inline:
		return y.seen[r].n
	}
	return d
}

// at answers the sum that a place's nodes see, and whether they have the key at all.
func (y *tally) at(p *Place) (int64, bool) {
	n := p.tuple[y.slot]
	switch {
	case y.inline && n == absent, !y.inline && n < 0:
		return 0, false
	case y.inline:
		return int64(n), true
	}
	return y.sum[n], true
}
