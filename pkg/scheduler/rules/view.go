package rules

import (
	"container/list"
	"encoding/binary"
	"slices"
)

// View is what is worked out for one class of pods, or for all lone classes of one shape, and kept for the next of them: which rows
// refuse them and why, and the others in places, each with its best row known. Bringing a view up to date costs the rows that changed
// since it was last used, so the second of a thousand replicas costs next to nothing, however many nodes there are.
type View struct {
	table   *Table
	class   *Class
	profile *Profile
	parts   []prepared
	checks  []*prepared // the parts with a Check
	scores  []*prepared // the parts with a Score
	asked   []Step      // where plugins have something to say
	refuse  *Verdict
	only    []string
	outside *Verdict // what the other nodes get
	raws    []func(r int32) int32
	keys    []*topology
	tallies []*tally

	seen     uint64     // the journal up to here
	seats    []seat     // by row
	verdicts []*Verdict // by number; the first is none
	numbers  map[*Verdict]int32
	places   []*Place
	byTuple  map[string]int32
	promised map[int32]bool // rows that fit, with nominated pods on them
	tuple    []int32
	scratch  []byte
	fit      []*Place
	ranked   []standing
	values   []int64
	epochs   epochs

	shared       bool   // by all lone classes of the shape of class
	ties         ties   // the class's
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
	table, storage, devices, classes uint64
}

type prepared struct {
	Part
	plugin *Plugin
	weight int64
}

// seat is what a view knows of a row. Many are kept, so they hold no pointers that the collector would follow.
type seat struct {
	direct  int64
	looked  uint32 // the row's version as seen
	refused int32  // the number of the verdict, 0 for none
	at      int32  // the place the row is in, -1 for none
	pos     int32  // where in the place
}

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
	t.arrange()
	t.intern(p)
	key := t.viewKey(p.Class, profile)
	v := t.views.get(key)
	if v != nil && v.stale() {
		t.views.drop(v)
		v = nil
	}
	if v == nil {
		if p.Class.spec == nil {
			p.Class.spec = p.spec
		}
		v = &View{table: t, class: p.Class, profile: profile, shared: key.shared}
		v.build()
		t.views.put(key, v)
	}
	p.spec = v.class.spec // the same, and one for all
	v.catchUp()
	return v
}

func (v *View) now() epochs {
	e := epochs{table: v.table.epoch}
	if len(v.class.claims)+len(v.class.disks) > 0 {
		e.storage = v.table.Storage.version
	}
	if len(v.class.extended) > 0 {
		e.classes = v.table.Devices.classesVersion
	}
	if len(v.class.devices) > 0 || v.table.Devices.backs(v.class) {
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
	if v.epochs != v.now() || v.seen < v.table.began {
		return true
	}
	return !v.shared && (v.siblingsMoved() || !v.table.ties(v.class).within(&v.ties))
}

// build prepares the plugins and looks at every row.
func (v *View) build() {
	v.verdicts, v.numbers = []*Verdict{nil}, map[*Verdict]int32{}
	v.byTuple, v.promised, v.victims = map[string]int32{}, map[int32]bool{}, map[int32]remembered{}
	v.prepare()
	v.seen = v.table.began + uint64(len(v.table.journal))
	v.epochs = v.now()
	v.siblingsSeen, v.siblingsText = v.table.siblingsVersion, v.siblingsNow()
	v.grow()
	for r := range v.table.rows {
		v.evaluate(int32(r))
	}
}

// prepare has each plugin read the class, and lays out the tuples of places.
func (v *View) prepare() {
	if !v.shared {
		x := v.table.ties(v.class)
		v.ties = ties{unwelcome: slices.Clone(x.unwelcome), liked: slices.Clone(x.liked)}
	}
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
	for i := range v.parts {
		if v.parts[i].Check != nil {
			v.checks = append(v.checks, &v.parts[i])
		}
		if v.parts[i].Score != nil {
			v.scores = append(v.scores, &v.parts[i])
		}
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
}

// end says that what was prepared is needed no more.
func (v *View) end() {
	for _, y := range v.tallies {
		v.table.leave(y.from)
	}
	if v.class.views == 0 {
		v.class.spec = nil
	}
}

func (v *View) grow() {
	more := len(v.table.rows) - len(v.seats)
	if more <= 0 {
		return
	}
	v.seats = slices.Grow(v.seats, more)
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
	n, s := &v.table.rows[r], &v.seats[r]
	if len(v.promised) > 0 {
		delete(v.promised, r)
	}
	s.looked = n.version
	live := n.node != nil
	for _, y := range v.tallies {
		y.look(r, live)
	}
	var no *Verdict
	switch {
	case !live:
		s.refused = 0
		v.leave(r)
		return
	case v.only != nil && !slices.Contains(v.only, n.name):
		no = v.outside
	default:
		no = v.checkRow(r)
	}
	if s.refused = v.number(no); no != nil {
		v.leave(r)
		return
	}
	s.direct = v.score(r)
	if v.hasPromises(r, "") {
		v.leave(r)
		v.promised[r] = true
		return
	}
	v.enter(r)
}

// number answers a verdict's number.
func (v *View) number(no *Verdict) int32 {
	if no == nil {
		return 0
	}
	i, ok := v.numbers[no]
	if !ok {
		i = int32(len(v.verdicts))
		v.numbers[no], v.verdicts = i, append(v.verdicts, no)
	}
	return i
}

// checkRow asks the plugins that look at rows; those after the first refusal are not asked.
func (v *View) checkRow(r int32) *Verdict {
	for _, part := range v.checks {
		began := v.table.meter.start()
		no := part.Check(r)
		v.table.meter.end(part.plugin, Filter, began)
		if no != nil {
			return no
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
	for _, part := range v.scores {
		began := v.table.meter.start()
		sum += part.weight * part.Score(r)
		v.table.meter.end(part.plugin, Score, began)
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

// enter puts a row that fits into its place, or in order there where it is in it already.
func (v *View) enter(r int32) {
	v.describe(r)
	s := &v.seats[r]
	key := keyOf(&v.table.rows[r], s.direct)
	if s.at >= 0 {
		if p := v.places[s.at]; slices.Equal(p.tuple, v.tuple) {
			p.set(s.pos, key)
			return
		}
		v.leave(r)
	}
	p := v.place()
	s.at, s.pos = p.index, p.add(r, key)
}

// place answers the place of v.tuple, a new one if need be.
func (v *View) place() *Place {
	name := v.nameOf(v.tuple)
	i, ok := v.byTuple[string(name)]
	if !ok {
		i = int32(len(v.places))
		v.places = append(v.places, &Place{tuple: slices.Clone(v.tuple), index: i, lead: -1})
		v.byTuple[string(name)] = i
	}
	return v.places[i]
}

// leave takes a row out of its place, and an empty place out of the view.
func (v *View) leave(r int32) {
	s := &v.seats[r]
	if s.at < 0 {
		return
	}
	i := s.at
	s.at = -1
	p := v.places[i]
	if moved := p.remove(s.pos); moved >= 0 {
		v.seats[moved].pos = s.pos
	}
	if len(p.rows) > 0 {
		return
	}
	delete(v.byTuple, string(v.nameOf(p.tuple)))
	end := v.places[len(v.places)-1]
	v.places = v.places[:len(v.places)-1]
	if end == p {
		return
	}
	v.places[i], end.index = end, i
	for _, other := range end.rows {
		v.seats[other].at = i
	}
	v.byTuple[string(v.nameOf(end.tuple))] = i
}

// nameOf answers a tuple as a key of byTuple, good until it is asked again.
func (v *View) nameOf(tuple []int32) []byte {
	v.scratch = v.scratch[:0]
	for _, n := range tuple {
		v.scratch = binary.LittleEndian.AppendUint32(v.scratch, uint32(n))
	}
	return v.scratch
}
