package rules

import "slices"

// Place holds rows that a class of pods cannot tell apart but by their own scores: the same domains of every topology key that matters,
// the same counts, the same raw values. It is a tournament: keys stand side by side in groups, and above them, level by level, the best
// of each group. A row whose key changes moves nobody else, so that this touches few lines of memory, however many rows there are; and
// the levels above are looked at when the best is asked for, once for all that changed in a group.
type Place struct {
	tuple []int32
	index int32
	rows  []int32
	keys  []uint64   // of the rows; the largest is the best
	best  [][]uint64 // per level, of each group of the level below; of the last there is one group
	stale []int32    // groups of keys that the levels do not tell yet
	lead  int32      // where the best row is, while known is its key; -1 otherwise
	known uint64
}

const (
	groupBits = 4
	group     = 1 << groupBits
)

// Raw answers the number that the plugin asked to be kept under this index.
func (p *Place) Raw(i int) int32 { return p.tuple[i] }

// A key orders the rows of a place: by score, then by how few pods they have, then by the hash of the seed. What has no room in its bits
// leaves keys equal; equal ones are told apart by looking at the rows.
const (
	rankBits  = 28
	podBits   = 12
	scoreAt   = podBits + rankBits
	mostPods  = 1<<podBits - 1
	mostScore = 1<<(64-scoreAt) - 1
	saturated = mostScore << scoreAt // keys from here on do not tell their score
)

func keyOf(n *row, score int64) uint64 {
	if score >= mostScore {
		return saturated
	}
	key := uint64(score) << scoreAt
	if len(n.pods) >= mostPods {
		return key
	}
	return key | uint64(mostPods-len(n.pods))<<rankBits | ^n.rank>>(64-rankBits)
}

func scoreOf(key uint64) int64 { return int64(key >> scoreAt) }

// single is a place of one row, described already.
func (v *View) single(r int32) *Place {
	p := &Place{tuple: slices.Clone(v.tuple), index: -1, lead: -1}
	p.add(r, keyOf(&v.table.rows[r], v.seats[r].direct))
	return p
}

// add puts a row in and answers where.
func (p *Place) add(r int32, key uint64) int32 {
	i := int32(len(p.rows))
	p.rows, p.keys = append(p.rows, r), append(p.keys, 0)
	below := p.keys
	for level := 0; len(below) > group; level++ {
		if level == len(p.best) {
			p.best = append(p.best, []uint64{slices.Max(below[:group])})
		}
		if groups := (len(below) + group - 1) >> groupBits; groups > len(p.best[level]) {
			p.best[level] = append(p.best[level], 0)
		}
		below = p.best[level]
	}
	p.set(i, key)
	return i
}

// set changes the key of the row at i.
func (p *Place) set(i int32, key uint64) {
	if i == p.lead || key >= p.known {
		p.lead = -1
	}
	p.keys[i] = key
	p.note(i >> groupBits)
}

// note remembers that a group of keys changed.
func (p *Place) note(g int32) {
	n := len(p.stale)
	if len(p.best) == 0 || n > 0 && p.stale[n-1] == g {
		return
	}
	if n == group {
		p.settle()
	}
	p.stale = append(p.stale, g)
}

// settle brings the levels up to date.
func (p *Place) settle() {
	for _, g := range p.stale {
		p.climb(int(g)<<groupBits, false)
	}
	p.stale = p.stale[:0]
}

// climb brings the levels above i up to date; all of them, or up to the first that stays as it was.
func (p *Place) climb(i int, all bool) {
	below := p.keys
	for level := range p.best {
		i >>= groupBits
		most := slices.Max(below[i<<groupBits : min(len(below), (i+1)<<groupBits)])
		if p.best[level][i] == most && !all {
			return
		}
		p.best[level][i] = most
		below = p.best[level]
	}
}

// remove takes the row at i out and answers the row that stands there now, -1 for none.
func (p *Place) remove(i int32) int32 {
	p.settle()
	last := len(p.rows) - 1
	switch p.lead {
	case i:
		p.lead = -1
	case int32(last):
		p.lead = i
	}
	moved, key := p.rows[last], p.keys[last]
	p.rows, p.keys = p.rows[:last], p.keys[:last]
	if cap(p.rows) > 4*last+group { // most have gone elsewhere
		p.rows, p.keys = slices.Clone(p.rows), slices.Clone(p.keys)
	}
	n := last
	for level := range p.best {
		if n <= group {
			p.best = p.best[:level]
			break
		}
		n = (n + group - 1) >> groupBits
		p.best[level] = p.best[level][:n]
	}
	if last > 0 {
		p.climb(last-1, true)
	}
	if int(i) == last {
		return -1
	}
	p.rows[i], p.keys[i] = moved, key
	p.note(i >> groupBits)
	return moved
}

// first answers the best row of a place that has any.
func (v *View) first(p *Place) int32 {
	if p.lead < 0 {
		p.settle()
		top := p.keys
		if len(p.best) > 0 {
			top = p.best[len(p.best)-1]
		}
		p.known = slices.Max(top)
		p.lead = v.seek(p, len(p.best), 0, -1)
	}
	return p.rows[p.lead]
}

// seek answers where the best row with the known key is in a group of a level, or that which was best so far.
func (v *View) seek(p *Place, level, g int, best int32) int32 {
	keys := p.keys
	if level > 0 {
		keys = p.best[level-1]
	}
	for i := g << groupBits; i < min(len(keys), (g+1)<<groupBits); i++ {
		switch {
		case keys[i] != p.known:
		case level > 0:
			best = v.seek(p, level-1, i, best)
		case best < 0 || v.better(p.rows[i], p.rows[best]):
			best = int32(i)
		}
	}
	return best
}

// better orders rows whose places score the same.
func (v *View) better(a, b int32) bool {
	if x, y := v.seats[a].direct, v.seats[b].direct; x != y {
		return x > y
	}
	return v.table.emptier(a, b)
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
