// Package rules decides where a pod goes: data in, a Plan out. It knows no clock, client or goroutine.
//
// A Table is the cluster, changed by each event. Decide takes one pod through the pipeline: each rule is a named Plugin in a file of its
// own, which prepares itself once for a class of like pods and then answers row by row, or for all rows of a place at once. What the
// plugins said is kept in the class's View and brought up to date by the journal of changed rows, so the next pod of the class pays only
// for what changed. The best row wins; when none is left the Plan says why in words, and whether evicting pods of lower priority would
// help. Nothing here locks: the caller owns the Table and serializes all calls.
package rules

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
)

// Snapshot is all a decision depends on.
type Snapshot struct {
	Table   *Table
	Pod     *Pod
	Profile *Profile
	// Adjust, when not nil, is asked after the pod's own rules: extenders answer through it.
	Adjust func(candidates []Candidate) (Adjustment, error)
	// Evict, when not nil, is asked about every node on which evicting pods would help; it answers what is left of them.
	Evict func(on []Eviction) ([]Eviction, error)
	// Meter, when not nil, adds up what the plugins take.
	Meter *Meter
}

// Candidate is a node that every plugin lets pass, with its score.
type Candidate struct {
	Node  string
	Score int64
	row   int32
}

// Eviction is a node that a pod would fit on without the victims, the most important first.
type Eviction struct {
	Node       string
	Victims    []*Pod
	Violations int // victims that a budget protects
}

// Adjustment is what others than the plugins say of candidates.
type Adjustment struct {
	Refused map[string]Verdict
	Bonus   map[string]int64
}

// Plan is a decision: a node, or why there is none.
type Plan struct {
	Pod       string
	Node      string
	Feasible  int
	Score     int64
	Message   string
	Rejectors []string // plugins that refused a node, sorted
	Nominated string
	// Keep says that an earlier nomination stands.
	Keep    bool
	Victims []*Pod
	// Volumes are what must be written before the pod is bound to Node; Claims the device claims allocated there.
	Volumes []VolumeBind
	Claims  []ClaimAllocation
	// Free are device claims that nobody uses, which would help; they are freed before anybody is evicted.
	Free []string
	// Asked are the plugins that had something to say of the pod, and where; the same slice for all pods of a class.
	Asked []Step
}

// String prints the plan for logs and goldens.
func (p Plan) String() string {
	if p.Node != "" {
		out := fmt.Sprintf("bind %s to %s (%d nodes fit)", p.Pod, p.Node, p.Feasible)
		for _, v := range p.Volumes {
			out += " " + v.String()
		}
		for _, c := range p.Claims {
			out += " allocate " + c.Key
		}
		return out
	}
	out := fmt.Sprintf("wait %s: %s", p.Pod, p.Message)
	if p.Nominated != "" {
		names := make([]string, len(p.Victims))
		for i, v := range p.Victims {
			names[i] = v.Key
		}
		out += fmt.Sprintf(" evict %s from %s", strings.Join(names, " "), p.Nominated)
	}
	return out
}

// NoNodes is the message where there is no node at all.
const NoNodes = "no nodes available to schedule pods"

// Decide takes the pod through the pipeline. The table is as before when it returns.
func Decide(s Snapshot) (Plan, error) {
	t := s.Table
	t.meter = s.Meter
	defer func() {
		t.meter = nil
		t.release(s.Pod.Class) // a class that shares the view of another is known no longer than it has pods
	}()
	plan := Plan{Pod: s.Pod.Key}
	if t.nodes == 0 {
		plan.Message = NoNodes
		return plan, nil
	}
	if node := t.Unnominate(s.Pod.Key); node != "" {
		defer t.Nominate(s.Pod, node)
		// Room was made for the pod there, so that node is asked first and alone.
		v := t.view(s.Pod, s.Profile)
		if r := t.byName[node]; v.refuse == nil && t.rows[r].node != nil && v.passes(r, s.Pod.Key) && v.late(r) == nil && s.Adjust == nil {
			v.choose(&plan, r, 0)
			plan.Feasible, plan.Asked = 1, v.asked
			return plan, nil
		}
		return s.decide(v, plan, node)
	}
	t.intern(s.Pod)
	if s.glance(&plan) {
		return plan, nil
	}
	return s.decide(t.view(s.Pod, s.Profile), plan, "")
}

func (s Snapshot) decide(v *View, plan Plan, nominated string) (Plan, error) {
	plan.Asked = v.asked
	if v.refuse != nil {
		refused := tallyOf(v.table.nodes)
		refused.add(v.refuse, v.table.nodes)
		plan.Rejectors = []string{v.refuse.Plugin}
		plan.Message = fmt.Sprintf("0/%d nodes are available: %s.", v.table.nodes, strings.Join(v.refuse.Reasons, ", "))
		after, err := s.preempt(v, &plan, nominated, func(int32) *Verdict { return v.refuse })
		plan.Message += " " + after
		return plan, err
	}
	if v.refused != nil && nominated == "" && s.Adjust == nil && s.Evict == nil && len(v.promised) == 0 {
		again := *v.refused
		again.Pod = s.Pod.Key
		return again, nil
	}
	var held map[int32]*Verdict
	if s.Adjust != nil {
		held = map[int32]*Verdict{}
		if err := s.adjusted(v, &plan, held); err != nil || plan.Node != "" {
			return plan, err
		}
	} else {
		held = s.best(v, &plan)
	}
	if plan.Node != "" {
		return plan, nil
	}
	why := func(r int32) *Verdict { return v.why(r, s.Pod.Key, held) }
	refused := tallyOf(v.table.nodes)
	rejectors := map[string]bool{}
	for r := range v.table.rows {
		if v.table.rows[r].node == nil {
			continue
		}
		if no := why(int32(r)); no != nil {
			refused.add(no, 1)
			rejectors[no.Plugin] = true
		}
	}
	plan.Rejectors = slices.Sorted(maps.Keys(rejectors))
	plan.Message = refused.String()
	after, err := s.preempt(v, &plan, nominated, why)
	if err != nil {
		return plan, err
	}
	if plan.Nominated == "" {
		plan.Message += " " + after
	}
	if plan.Nominated == "" && nominated == "" && s.Evict == nil && len(held) == 0 && len(v.promised) == 0 && len(plan.Free) == 0 {
		kept := plan
		v.refused = &kept
	}
	return plan, nil
}

// best picks the best row that even the dear checks let pass, and answers those that they refuse.
func (s Snapshot) best(v *View, plan *Plan) (held map[int32]*Verdict) {
	defer func() {
		for r := range held {
			if !v.promised[r] {
				v.enter(r)
			}
		}
	}()
	for {
		ranked := v.rank(s.Pod.Key, held)
		r, score, feasible := v.top(ranked)
		if r < 0 {
			return held
		}
		no := v.late(r)
		if no == nil {
			plan.Feasible = feasible
			v.choose(plan, r, score)
			return held
		}
		if held == nil {
			held = map[int32]*Verdict{}
		}
		held[r] = no
		v.leave(r)
	}
}

// choose writes a node into the plan, and what must be written elsewhere for it.
func (v *View) choose(plan *Plan, r int32, score int64) {
	plan.Node, plan.Score = v.table.rows[r].name, score
	if len(v.class.claims) > 0 && v.profile.on(volumeBinding, Filter) && v.profile.on(volumeBinding, Reserve) && v.profile.on(volumeBinding, PreBind) {
		plan.Volumes = v.table.Storage.bindsFor(v.class, r)
	}
	if len(v.class.devices) > 0 || v.table.Devices.backs(v.class) {
		plan.Claims = v.devices
		for i := range plan.Claims {
			if plan.Claims[i].Extended != nil {
				plan.Claims[i].Key = plan.Pod + extendedSuffix
			}
		}
	}
}

// standing is a place among those that can take the pod, with its score.
type standing struct {
	place *Place
	score int64
}

// rank answers the places that pass, scored against each other, until it is asked again. Rows with nominated pods on them that pass stand in places of their own.
func (v *View) rank(key string, held map[int32]*Verdict) []standing {
	fit := v.fit[:0]
	for _, p := range v.places {
		if v.checkPlace(p) == nil {
			fit = append(fit, p)
		}
	}
	for _, r := range slices.Sorted(maps.Keys(v.promised)) {
		if held[r] == nil && v.passes(r, key) {
			v.describe(r)
			fit = append(fit, v.single(r))
		}
	}
	v.fit = fit
	if len(fit) == 0 {
		return nil
	}
	out := v.ranked[:0]
	for _, p := range fit {
		out = append(out, standing{place: p})
	}
	v.ranked = out
	v.values = slices.Grow(v.values[:0], len(fit))
	values := v.values[:len(fit)]
	for i := range v.parts {
		part := &v.parts[i]
		if part.Rank == nil {
			continue
		}
		clear(values)
		began := v.table.meter.start()
		part.Rank(fit, values)
		v.table.meter.end(part.plugin, Score, began)
		for j, n := range values {
			out[j].score += part.weight * n
		}
	}
	return out
}

// top answers the best row of ranked places, -1 for none, and how many rows there are.
func (v *View) top(ranked []standing) (best int32, score int64, feasible int) {
	best = -1
	var order uint64 // of the best
	for _, s := range ranked {
		r, own := v.first(s.place), s.place.known
		feasible += len(s.place.rows)
		total := s.score + scoreOf(own)
		if own >= saturated {
			total = s.score + v.seats[r].direct
		}
		own &= 1<<scoreAt - 1
		if best < 0 || total > score || total == score && (own > order || own == order && v.table.emptier(r, best)) {
			best, score, order = r, total, own
		}
	}
	return best, score, feasible
}

// adjusted hands all candidates to Adjust and picks among those it leaves.
func (s Snapshot) adjusted(v *View, plan *Plan, held map[int32]*Verdict) error {
	var candidates []Candidate
	for _, st := range v.rank(s.Pod.Key, held) {
		for _, r := range st.place.rows {
			candidates = append(candidates, Candidate{v.table.rows[r].name, st.score + v.seats[r].direct, r})
		}
	}
	if len(candidates) == 0 {
		return nil
	}
	slices.SortFunc(candidates, func(a, b Candidate) int { return strings.Compare(a.Node, b.Node) })
	answer, err := s.Adjust(candidates)
	if err != nil {
		return err
	}
	left := candidates[:0]
	for _, c := range candidates {
		if no, ok := answer.Refused[c.Node]; ok {
			held[c.row] = &no
			continue
		}
		c.Score += answer.Bonus[c.Node]
		left = append(left, c)
	}
	plan.Feasible = len(left)
	slices.SortFunc(left, func(a, b Candidate) int {
		if a.Score != b.Score {
			return cmp.Compare(b.Score, a.Score)
		}
		if v.table.emptier(a.row, b.row) {
			return -1
		}
		return 1
	})
	for _, c := range left {
		no := v.late(c.row)
		if no == nil {
			v.choose(plan, c.row, c.Score)
			return nil
		}
		held[c.row] = no
	}
	return nil
}

// late asks the dear checks of one row.
func (v *View) late(r int32) *Verdict {
	for i := range v.parts {
		if late := v.parts[i].Late; late != nil {
			began := v.table.meter.start()
			no := late(r)
			v.table.meter.end(v.parts[i].plugin, Filter, began)
			if no != nil {
				return no
			}
		}
	}
	return nil
}

// why answers what refuses a row, nil for nothing.
func (v *View) why(r int32, key string, held map[int32]*Verdict) *Verdict {
	if no := held[r]; no != nil {
		return no
	}
	if no := v.verdicts[v.seats[r].refused]; no != nil {
		return no
	}
	if i := v.seats[r].at; i >= 0 {
		return v.checkPlace(v.places[i])
	}
	return v.ask(r, key)
}

// hasPromises says whether pods that come first are nominated to a row.
func (v *View) hasPromises(r int32, key string) bool {
	for _, p := range v.table.rows[r].nominated {
		if p.Key != key && p.Class.Priority >= v.class.Priority {
			return true
		}
	}
	return false
}

func (v *View) passes(r int32, key string) bool { return v.ask(r, key) == nil }

// ask evaluates one row as the table is at this moment: with the pods nominated to it that come first standing already, and without.
func (v *View) ask(r int32, key string) *Verdict {
	if no := v.probe(r); no != nil || !v.hasPromises(r, key) {
		return no
	}
	t := v.table
	was := t.thinking
	t.thinking = true
	var there []*Pod
	for _, p := range t.rows[r].nominated {
		if p.Key != key && p.Class.Priority >= v.class.Priority {
			there = append(there, p)
		}
	}
	defer func() {
		for _, p := range there {
			if p.at >= 0 {
				t.count(r, p, -1)
			}
		}
		t.thinking = was
	}()
	for _, p := range there {
		t.intern(p)
		t.count(r, p, 1)
	}
	return v.probe(r)
}

// probe asks every plugin about a row whose pods are not those the view last saw.
func (v *View) probe(r int32) *Verdict {
	if no := v.checkRow(r); no != nil {
		return no
	}
	if len(v.tallies) == 0 {
		return nil
	}
	for _, y := range v.tallies {
		if !y.own {
			y.before = y.seen[r]
			y.look(r, true)
		}
	}
	v.describe(r)
	no := v.checkPlace(&Place{tuple: v.tuple})
	for _, y := range v.tallies {
		if !y.own {
			y.put(r, y.before)
		}
	}
	return no
}

// refusals counts reasons over nodes.
type refusals struct {
	nodes  int
	counts map[*Verdict]int
}

func tallyOf(nodes int) *refusals { return &refusals{nodes, map[*Verdict]int{}} }

func (x *refusals) add(no *Verdict, nodes int) { x.counts[no] += nodes }

// String is "0/3 nodes are available: 2 Insufficient cpu, 1 Too many pods."
func (x *refusals) String() string {
	counts := map[string]int{}
	for no, n := range x.counts {
		for _, reason := range no.Reasons {
			counts[reason] += n
		}
	}
	lines := make([]string, 0, len(counts))
	for reason, n := range counts {
		lines = append(lines, fmt.Sprintf("%d %s", n, reason))
	}
	slices.Sort(lines)
	return fmt.Sprintf("0/%d nodes are available: %s.", x.nodes, strings.Join(lines, ", "))
}

// Gated answers the reason and words for a pod that must not be decided yet; empty when it may.
func Gated(p *v1.Pod) (reason, message string) {
	if len(p.Spec.SchedulingGates) == 0 {
		return "", ""
	}
	return v1.PodReasonSchedulingGated, "Scheduling is blocked due to non-empty scheduling gates"
}
