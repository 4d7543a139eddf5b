package rules

import "slices"

// manyFirsts bounds what is remembered of who came once.
const manyFirsts = 1 << 13

// unheard says whether a view is asked for that has not been asked for before, as far as is remembered.
func (s *views) unheard(k viewKey) bool {
	if _, again := s.once[k]; again {
		delete(s.once, k)
		return false
	}
	if len(s.once) >= manyFirsts {
		clear(s.once)
	}
	s.once[k] = struct{}{}
	return true
}

// glance decides about a pod unlike all before it: maybe none like it follows, so every row is looked at once and nothing is kept. False
// says that the pod needs a view: nothing fits, or what is asked late or promised to others decides.
func (s Snapshot) glance(plan *Plan) bool {
	t, c := s.Table, s.Pod.Class
	key := t.viewKey(c, s.Profile)
	if s.Adjust != nil || t.views.byKey[key] != nil || !t.views.unheard(key) {
		return false
	}
	if c.spec == nil {
		c.spec = s.Pod.spec
	}
	v := &View{table: t, class: c, profile: s.Profile, shared: key.shared, byTuple: map[string]int32{}}
	v.prepare()
	defer v.end()
	if v.refuse != nil || slices.ContainsFunc(v.parts, func(p prepared) bool { return p.Late != nil }) || !v.survey(s.Pod.Key) {
		return false
	}
	r, score, feasible := v.top(v.rank(s.Pod.Key, nil))
	if r < 0 {
		return false
	}
	plan.Asked, plan.Feasible = v.asked, feasible
	v.choose(plan, r, score)
	return true
}

// survey puts rows that fit into places, of which only the best is known; false when that cannot be told. As upstream does, it ends when
// it has enough of them, and begins anywhere.
func (v *View) survey(key string) bool {
	t := v.table
	for _, y := range v.tallies {
		for r := range t.rows {
			y.look(int32(r), t.rows[r].node != nil)
		}
	}
	var p *Place
	enough := v.profile.enough(t.nodes)
	start := int(t.hash(key) % uint64(len(t.rows)))
	for i := 0; i < len(t.rows) && enough > 0; i++ {
		r := int32(start + i)
		if r >= int32(len(t.rows)) {
			r -= int32(len(t.rows))
		}
		n := &t.rows[r]
		if n.node == nil || v.only != nil && !slices.Contains(v.only, n.name) || v.checkRow(r) != nil {
			continue
		}
		if len(n.nominated) > 0 {
			return false
		}
		key := keyOf(n, v.score(r))
		if key >= saturated {
			return false
		}
		if v.describe(r); p == nil || !slices.Equal(p.tuple, v.tuple) {
			if p = v.place(); len(p.rows) == 0 && v.checkPlace(p) != nil {
				p.known = shut
			}
		}
		p.rows = append(p.rows, r)
		if p.known == shut {
			continue
		}
		enough--
		if len(p.rows) == 1 || key > p.known || key == p.known && t.emptier(r, p.rows[p.lead]) {
			p.known, p.lead = key, int32(len(p.rows)-1)
		}
	}
	return true
}

// shut is the key of a place that does not pass; no row has it.
const shut = 1<<64 - 1

// enough answers how many nodes that fit are weighed where each must be looked at: by percentageOfNodesToScore, or, where that is 0, half
// of a small cluster and 5 % of a large one; never fewer than a hundred.
func (p *Profile) enough(nodes int) int {
	percent := p.Percentage
	if percent == 0 {
		percent = max(50-nodes/125, 5)
	}
	return min(max(nodes*percent/100, fewestWeighed), nodes)
}

const fewestWeighed = 100
