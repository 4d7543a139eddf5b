package rules

import (
	"container/list"
	"crypto/sha256"
	"encoding/binary"
	"slices"
)

// View is what is worked out for one class of pods and kept for the next of them: which rows refuse them and why, and the others in
// places, each a heap with its best row on top. Bringing a view up to date costs the rows that changed since it was last used, so the
// second of a thousand replicas costs next to nothing, however many nodes there are.
type View struct {
	table   *Table
	class   *Class
	profile *Profile
	parts   []prepared
	asked   []Step // where plugins have something to say
	refuse  *Verdict
	only    []string
	outside *Verdict // what the other nodes get
	raws    []func(r int32) int32
	keys    []*topology
	tallies []*tally

	seen     uint64  // the journal up to here
	seats    []seat  // by row
	pos      []int32 // by row: where in its place's heap
	places   []*Place
	byTuple  map[string]int32
	promised map[int32]bool // rows that fit, with nominated pods on them
	tuple    []int32
	scratch  []byte
	epochs   epochs

	siblingsSeen uint64 // the table's version of who selects whom
	siblingsText string

	victims map[int32]remembered
	devices []ClaimAllocation // what the last late check would allocate
	refused *Plan             // the last answer, while nothing changed
	element *list.Element
	charged int // rows, to the views' bound
}

// epochs are the states of what a view is built on, beside the rows.
type epochs struct {
	table, storage, devices uint64
}

type prepared struct {
	Part
	plugin *Plugin
	weight int64
}

// seat is what a view knows of a row.
type seat struct {
	verdict *Verdict
	direct  int64
	looked  uint32 // the row's version as seen
	at      int32  // the place the row is in, -1 for none
}

// Place holds rows that a class of pods cannot tell apart but by their own scores: the same domains of every topology key that matters,
// the same counts, the same raw values.
type Place struct {
	tuple []int32
	rows  []entry // a heap of eight children each, the best in front
	index int32
}

// entry is a row in a place's heap, with what it is ordered by: its own score, then how few pods it has, then a hash of the seed. It is
// small, so that the children of one are looked at together.
type entry struct {
	merit uint64 // the score in the upper 40 bits, the complement of the number of pods in the others
	rank  uint32 // the first half of the row's
	row   int32
}

const mostPods = 1<<24 - 1

func entryOf(n *row, r int32, score int64) entry {
	return entry{uint64(score)<<24 | uint64(mostPods-min(len(n.pods), mostPods)), uint32(n.rank >> 32), r}
}

// Raw answers the number that the plugin asked to be kept under this index.
func (p *Place) Raw(i int) int32 { return p.tuple[i] }

// raw asks for a number of each row to be part of its place.
func (v *View) raw(f func(r int32) int32) int {
	v.raws = append(v.raws, f)
	return len(v.raws) - 1
}

// tally asks for a sum of counter k by domain of a node label.
func (v *View) tally(k *counter, key string, y tally) *tally {
	y.from, y.key = k, v.table.topology(key)
	k.users++
	kept := &y
	v.tallies = append(v.tallies, kept)
	return kept
}

// view answers the view of a pod's class, brought up to date.
func (t *Table) view(p *Pod, profile *Profile) *View {
	t.intern(p)
	key := viewKey{p.Class.id, profile}
	v := t.views.get(key)
	if v != nil && v.stale() {
		t.views.drop(v)
		v = nil
	}
	if v == nil {
		if p.Class.spec == nil {
			p.Class.spec = p.spec
		}
		v = &View{table: t, class: p.Class, profile: profile}
		v.build()
		t.views.put(key, v)
	}
	v.catchUp()
	return v
}

func (v *View) now() epochs {
	e := epochs{table: v.table.epoch}
	if len(v.class.claims)+len(v.class.disks) > 0 {
		e.storage = v.table.Storage.version
	}
	if len(v.class.devices) > 0 {
		e.devices = v.table.Devices.version
	}
	return e
}

// stale says whether the view cannot be brought up to date row by row. One reason is that a label told every node apart and now does not,
// or the other way round: places are made from other numbers then.
func (v *View) stale() bool {
	for _, y := range v.tallies {
		if y.inline != (y.own || y.key.unique()) {
			return true
		}
	}
	return v.epochs != v.now() || v.seen < v.table.began || v.siblingsMoved()
}

// build prepares the plugins and looks at every row.
func (v *View) build() {
	v.byTuple, v.promised, v.victims = map[string]int32{}, map[int32]bool{}, map[int32]remembered{}
	for _, plugin := range v.profile.plugins {
		if plugin.Prepare == nil {
			continue
		}
		began := v.table.meter.start()
		part := plugin.Prepare(v)
		v.table.meter.end(plugin, plugin.firstPoint(), began)
		if !v.profile.on(plugin, Filter) {
			part.Check, part.CheckPlace, part.Late = nil, nil, nil
		}
		if !v.profile.on(plugin, PreFilter) {
			part.Refuse, part.Only = nil, nil
		}
		weight := v.profile.weight(plugin)
		if weight == 0 {
			part.Score, part.Rank = nil, nil
		}
		if part.Refuse != nil && v.refuse == nil {
			v.refuse = part.Refuse
		}
		if part.Only != nil && v.only == nil {
			v.only = part.Only
			v.outside = &Verdict{Plugin: plugin.Name, Reasons: []string{"node(s) didn't satisfy plugin(s) [" + plugin.Name + "]"}, Final: true,
				Advice: "the pod names other nodes"}
		}
		v.parts = append(v.parts, prepared{part, plugin, weight})
	}
	v.asked = v.steps()
	slot := len(v.raws)
	slots := map[*topology]int{}
	for _, y := range v.tallies {
		y.inline = y.own || y.key.unique()
		if y.inline {
			continue
		}
		if _, ok := slots[y.key]; !ok {
			slots[y.key] = slot
			v.keys = append(v.keys, y.key)
			slot++
		}
		y.slot = slots[y.key]
	}
	for _, y := range v.tallies {
		if y.inline {
			y.slot = slot
			slot++
		}
	}
	v.tuple = make([]int32, slot)
	v.seen = v.table.began + uint64(len(v.table.journal))
	v.epochs = v.now()
	v.siblingsSeen, v.siblingsText = v.table.siblingsVersion, v.siblingsNow()
	v.grow()
	for r := range v.table.rows {
		v.evaluate(int32(r))
	}
}

func (v *View) grow() {
	more := len(v.table.rows) - len(v.seats)
	if more <= 0 {
		return
	}
	v.seats, v.pos = slices.Grow(v.seats, more), append(v.pos, make([]int32, more)...)
	for range more {
		v.seats = append(v.seats, seat{at: -1})
	}
	for _, y := range v.tallies {
		y.grow(len(v.table.rows))
	}
}

// catchUp looks again at the rows that changed.
func (v *View) catchUp() {
	t := v.table
	end := t.began + uint64(len(t.journal))
	if v.seen == end {
		return
	}
	v.grow()
	v.refused = nil
	changed := t.journal[v.seen-t.began:]
	// The sums first: a row's place depends on those of its domains, which a row further on may just have left.
	for _, r := range changed {
		if v.seats[r].looked != t.rows[r].version && len(changed) > 1 {
			for _, y := range v.tallies {
				y.look(r, t.rows[r].node != nil)
			}
		}
	}
	for _, r := range changed {
		if v.seats[r].looked != t.rows[r].version {
			v.evaluate(r)
		}
	}
	v.seen = end
}

// evaluate works out one row afresh.
func (v *View) evaluate(r int32) {
	t, n, s := v.table, &v.table.rows[r], &v.seats[r]
	v.leave(r)
	if len(v.promised) > 0 {
		delete(v.promised, r)
	}
	s.looked, s.verdict = n.version, nil
	live := n.node != nil
	for _, y := range v.tallies {
		y.look(r, live)
	}
	if !live {
		return
	}
	if v.only != nil && !slices.Contains(v.only, t.rows[r].name) {
		s.verdict = v.outside
		return
	}
	if s.verdict = v.checkRow(r); s.verdict != nil {
		return
	}
	s.direct = v.score(r)
	if v.hasPromises(r, "") {
		v.promised[r] = true
		return
	}
	v.enter(r)
}

// checkRow asks the plugins that look at rows; those after the first refusal are not asked.
func (v *View) checkRow(r int32) *Verdict {
	for i := range v.parts {
		if check := v.parts[i].Check; check != nil {
			began := v.table.meter.start()
			no := check(r)
			v.table.meter.end(v.parts[i].plugin, Filter, began)
			if no != nil {
				return no
			}
		}
	}
	return nil
}

func (v *View) checkPlace(p *Place) *Verdict {
	for i := range v.parts {
		if check := v.parts[i].CheckPlace; check != nil {
			began := v.table.meter.start()
			no := check(p)
			v.table.meter.end(v.parts[i].plugin, Filter, began)
			if no != nil {
				return no
			}
		}
	}
	return nil
}

func (v *View) score(r int32) int64 {
	sum := int64(0)
	for i := range v.parts {
		if part := &v.parts[i]; part.Score != nil {
			began := v.table.meter.start()
			sum += part.weight * part.Score(r)
			v.table.meter.end(part.plugin, Score, began)
		}
	}
	return sum
}

// describe writes the tuple of a row into v.tuple.
func (v *View) describe(r int32) {
	for i, f := range v.raws {
		v.tuple[i] = f(r)
	}
	for i, key := range v.keys {
		v.tuple[len(v.raws)+i] = key.of[r]
	}
	for _, y := range v.tallies {
		if y.inline {
			v.tuple[y.slot] = y.encode(r)
		}
	}
}

// enter puts a row that fits into its place.
func (v *View) enter(r int32) {
	v.describe(r)
	v.scratch = v.scratch[:0]
	for _, n := range v.tuple {
		v.scratch = binary.LittleEndian.AppendUint32(v.scratch, uint32(n))
	}
	i, ok := v.byTuple[string(v.scratch)]
	if !ok {
		i = int32(len(v.places))
		v.places = append(v.places, &Place{tuple: append([]int32(nil), v.tuple...), index: i})
		v.byTuple[string(v.scratch)] = i
	}
	p := v.places[i]
	n, s := &v.table.rows[r], &v.seats[r]
	s.at = i
	p.rows = append(p.rows, entry{})
	v.up(p, len(p.rows)-1, entryOf(n, r, s.direct))
}

// leave takes a row out of its place, and an empty place out of the view.
func (v *View) leave(r int32) {
	i := v.seats[r].at
	if i < 0 {
		return
	}
	v.seats[r].at = -1
	p := v.places[i]
	hole, last := int(v.pos[r]), len(p.rows)-1
	moved := p.rows[last]
	p.rows = p.rows[:last]
	if hole < last && !v.up(p, hole, moved) {
		v.down(p, hole, moved)
	}
	if last > 0 {
		return
	}
	v.scratch = v.scratch[:0]
	for _, n := range p.tuple {
		v.scratch = binary.LittleEndian.AppendUint32(v.scratch, uint32(n))
	}
	delete(v.byTuple, string(v.scratch))
	end := v.places[len(v.places)-1]
	v.places = v.places[:len(v.places)-1]
	if end == p {
		return
	}
	v.places[i], end.index = end, i
	for _, e := range end.rows {
		v.seats[e.row].at = i
	}
	v.scratch = v.scratch[:0]
	for _, n := range end.tuple {
		v.scratch = binary.LittleEndian.AppendUint32(v.scratch, uint32(n))
	}
	v.byTuple[string(v.scratch)] = i
}

// better orders rows whose places score the same. It hardly ever reads more than the entries.
func (v *View) better(a, b *entry) bool {
	if a.merit != b.merit {
		return a.merit > b.merit
	}
	return a.rank < b.rank || a.rank == b.rank && v.table.emptier(a.row, b.row)
}

func (t *Table) emptier(a, b int32) bool {
	x, y := &t.rows[a], &t.rows[b]
	if len(x.pods) != len(y.pods) {
		return len(x.pods) < len(y.pods)
	}
	if x.rank != y.rank {
		return x.rank < y.rank
	}
	return x.name < y.name
}

// up puts an entry in the hole at i or above, moving worse ones down, and says whether it went above.
func (v *View) up(p *Place, i int, e entry) bool {
	from := i
	for i > 0 {
		parent := (i - 1) / 8
		if !v.better(&e, &p.rows[parent]) {
			break
		}
		v.seat(p, i, p.rows[parent])
		i = parent
	}
	v.seat(p, i, e)
	return i < from
}

// down puts an entry in the hole at i or below, moving better ones up.
func (v *View) down(p *Place, i int, e entry) {
	for {
		best := -1
		for child := 8*i + 1; child <= 8*i+8 && child < len(p.rows); child++ {
			if best < 0 || v.better(&p.rows[child], &p.rows[best]) {
				best = child
			}
		}
		if best < 0 || !v.better(&p.rows[best], &e) {
			break
		}
		v.seat(p, i, p.rows[best])
		i = best
	}
	v.seat(p, i, e)
}

func (v *View) seat(p *Place, i int, e entry) {
	p.rows[i] = e
	v.pos[e.row] = int32(i)
}

// viewRows bounds the rows of all views together, about 60 bytes each.
const viewRows = 1 << 20

type viewKey struct {
	class   [sha256.Size224]byte
	profile *Profile
}

// views keeps the views used last.
type views struct {
	byKey map[viewKey]*View
	order *list.List // of viewKey, the last used in front
	rows  int
}

func newViews() *views { return &views{byKey: map[viewKey]*View{}, order: list.New()} }

func (s *views) get(k viewKey) *View {
	v := s.byKey[k]
	if v != nil {
		s.order.MoveToFront(v.element)
	}
	return v
}

func (s *views) put(k viewKey, v *View) {
	for s.order.Len() > 4 && s.rows+len(v.seats) > viewRows {
		s.drop(s.byKey[s.order.Back().Value.(viewKey)])
	}
	s.byKey[k] = v
	v.element, v.charged = s.order.PushFront(k), len(v.seats)
	v.class.views++
	s.rows += v.charged
}

func (s *views) drop(v *View) {
	delete(s.byKey, v.element.Value.(viewKey))
	s.order.Remove(v.element)
	s.rows -= v.charged
	for _, y := range v.tallies {
		v.table.leave(y.from)
	}
	if v.class.views--; v.class.views == 0 {
		v.class.spec = nil
	}
	v.table.release(v.class)
}

func (s *views) clear() {
	for s.order.Len() > 0 {
		s.drop(s.byKey[s.order.Front().Value.(viewKey)])
	}
}

// ID tells a class from others; pods with equal IDs fit the same nodes.
func (c *Class) ID() string { return string(c.id[:]) }

// Share lets a pod use the class that the table knows, so that many pods digested at once weigh little.
func (t *Table) Share(p *Pod) { t.intern(p) }

// cached answers a class's view if there is one that can be brought up to date, nil otherwise.
func (t *Table) cached(p *Pod, profile *Profile) *View {
	v := t.views.byKey[viewKey{p.Class.id, profile}]
	if v == nil || v.stale() {
		return nil
	}
	v.catchUp()
	return v
}
