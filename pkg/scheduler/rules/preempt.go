package rules

import (
	"cmp"
	"math"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/labels"
)

// defaultPreemption makes room for a pod by evicting others of lower priority.
var defaultPreemption = &Plugin{Name: "DefaultPreemption", Points: []Point{PreEnqueue, PostFilter}}

var (
	noHelp    = &Verdict{Plugin: "DefaultPreemption", Reasons: []string{"Preemption is not helpful for scheduling"}}
	noVictims = &Verdict{Plugin: "DefaultPreemption", Reasons: []string{"No preemption victims found for incoming pod"}}
)

// Budget is a PodDisruptionBudget as preemption reads it.
type Budget struct {
	Namespace string
	Pods      labels.Selector
	Allowed   int32
	Disrupted map[string]bool // pods by name whose eviction is counted already
}

// SetBudget adds or replaces a budget; nil forgets it.
func (t *Table) SetBudget(key string, b *Budget) {
	if b == nil {
		delete(t.budgets, key)
	} else {
		t.budgets[key] = b
	}
	t.budgetsVersion++
}

// candidate is a node on which the pod fits once the victims are gone.
type candidate struct {
	row        int32
	victims    []*Pod // the most important first
	violations int    // victims that a budget protects
}

// remembered is what preemption found on a row, good while neither the row nor a budget changes.
type remembered struct {
	version uint32
	budgets uint64
	victims []*Pod
	broken  int
	no      *Verdict
}

// preempt looks for pods of lower priority whose leaving would let the pod in. It sets the plan's Nominated and Victims, or
// answers in words why it does not.
func (s Snapshot) preempt(v *View, plan *Plan, nominated string, why func(r int32) *Verdict) (string, error) {
	began := v.table.meter.start()
	defer func() { v.table.meter.end(defaultPreemption, PostFilter, began) }()
	words := "preemption: "
	if v.profile.On(dynamicResources.Name, PostFilter) {
		words = v.deallocate(plan) + ", " + words
	}
	if !v.profile.On(defaultPreemption.Name, PostFilter) || len(plan.Free) > 0 {
		return strings.TrimSuffix(words, ", preemption: ") + ".", nil
	}
	if v.class.Never {
		return words + "not eligible due to preemptionPolicy=Never.", nil
	}
	if nominated != "" && v.leaving(nominated) {
		plan.Keep = true
		return words + "not eligible due to a terminating pod on the nominated node.", nil
	}
	t := v.table
	refused := tallyOf(t.nodes)
	var candidates []candidate
	enough := max(t.nodes*v.profile.MinCandidatesPercentage/100, v.profile.MinCandidates)
	// Every class begins elsewhere, and stays there, so that what is remembered of rows serves its next pod.
	start := int(v.class.id[0])<<8 | int(v.class.id[1])
	for i := range t.rows {
		r := int32((start + i) % len(t.rows))
		if t.rows[r].node == nil {
			continue
		}
		if no := why(r); no == nil || no.Final {
			refused.add(noHelp, 1)
			continue
		}
		found := v.victimsOn(r, s.Pod)
		if found.no != nil {
			refused.add(found.no, 1)
			continue
		}
		candidates = append(candidates, candidate{r, found.victims, found.broken})
		if len(candidates) >= enough {
			break
		}
	}
	if s.Evict != nil && len(candidates) > 0 {
		var err error
		if candidates, err = s.evictions(candidates); err != nil {
			return "", err
		}
	}
	if len(candidates) == 0 {
		return words + refused.String(), nil
	}
	best := slices.MinFunc(candidates, func(a, b candidate) int { return t.cheaper(a, b) })
	plan.Nominated, plan.Victims = t.rows[best.row].name, best.victims
	return "", nil
}

// evictions asks Evict about candidates. Of its answer, what is no candidate is nothing.
func (s Snapshot) evictions(candidates []candidate) ([]candidate, error) {
	t := s.Table
	on := make([]Eviction, len(candidates))
	for i, c := range candidates {
		on[i] = Eviction{t.rows[c.row].name, c.victims, c.violations}
	}
	left, err := s.Evict(on)
	if err != nil {
		return nil, err
	}
	out := candidates[:0:0]
	for _, e := range left {
		i := slices.IndexFunc(on, func(c Eviction) bool { return c.Node == e.Node })
		if i >= 0 && len(e.Victims) > 0 {
			out = append(out, candidate{candidates[i].row, e.Victims, e.Violations})
		}
	}
	return out, nil
}

// leaving says whether victims of an earlier round are still going: evicting more now would evict too many.
func (v *View) leaving(node string) bool {
	r, ok := v.table.byName[node]
	if !ok {
		return false
	}
	return slices.ContainsFunc(v.table.rows[r].pods, func(p *Pod) bool { return p.Leaving && p.Class.Priority < v.class.Priority })
}

// victimsOn answers the fewest, least important pods to evict from a row, remembered where that is sound: where no pod elsewhere matters.
func (v *View) victimsOn(r int32, pod *Pod) remembered {
	t := v.table
	old, ok := v.victims[r]
	if ok && old.version == t.rows[r].version && old.budgets == t.budgetsVersion {
		return old
	}
	found := v.findVictims(r, pod)
	found.version, found.budgets = t.rows[r].version, t.budgetsVersion
	if !v.depends() && len(t.rows[r].nominated) == 0 {
		v.victims[r] = found
	}
	return found
}

// depends says whether what stands on other rows decides about a row.
func (v *View) depends() bool {
	return slices.ContainsFunc(v.parts, func(p prepared) bool { return p.CheckPlace != nil })
}

// findVictims takes pods out of the row and puts them back, until it knows which must go.
func (v *View) findVictims(r int32, pod *Pod) remembered {
	t := v.table
	var lower []*Pod
	for _, p := range t.rows[r].pods {
		if p.Class.Priority < v.class.Priority {
			lower = append(lower, p)
		}
	}
	if len(lower) == 0 {
		return remembered{no: noVictims}
	}
	t.thinking = true
	defer func() { // whatever happens, nobody is missing afterwards
		for _, p := range lower {
			if p.at < 0 {
				t.count(r, p, 1)
			}
		}
		t.thinking = false
	}()
	for _, p := range lower {
		t.count(r, p, -1)
	}
	if no := v.ask(r, pod.Key); no != nil {
		return remembered{no: no}
	}
	slices.SortFunc(lower, moreImportant)
	guarded, free := t.guarded(lower)
	var victims []*Pod
	broken := 0
	reprieve := func(list []*Pod, count bool) {
		for _, p := range list {
			t.count(r, p, 1)
			if v.ask(r, pod.Key) == nil {
				continue
			}
			t.count(r, p, -1)
			victims = append(victims, p)
			if count {
				broken++
			}
		}
	}
	reprieve(guarded, true)
	reprieve(free, false)
	slices.SortFunc(victims, moreImportant)
	return remembered{victims: victims, broken: broken}
}

// guarded parts pods into those whose eviction a budget does not allow and the others. Each evicted pod uses its budgets up.
func (t *Table) guarded(pods []*Pod) (guarded, free []*Pod) {
	if len(t.budgets) == 0 {
		return nil, pods
	}
	left := map[*Budget]int32{}
	for _, p := range pods {
		broken := false
		for _, b := range t.budgets {
			if b.Namespace != p.Class.Namespace || len(p.Class.labels) == 0 || !b.Pods.Matches(p.Class.labels) || b.Disrupted[p.Name()] {
				continue
			}
			n, ok := left[b]
			if !ok {
				n = b.Allowed
			}
			left[b] = n - 1
			broken = broken || n <= 0
		}
		if broken {
			guarded = append(guarded, p)
		} else {
			free = append(free, p)
		}
	}
	return guarded, free
}

// moreImportant orders by priority, then by how long a pod runs.
func moreImportant(a, b *Pod) int {
	if a.Class.Priority != b.Class.Priority {
		return cmp.Compare(b.Class.Priority, a.Class.Priority)
	}
	if a.Start != b.Start && a.Start != 0 && b.Start != 0 {
		return cmp.Compare(a.Start, b.Start)
	}
	return strings.Compare(a.Key, b.Key)
}

// cheaper orders candidates: fewest broken budgets, lowest most important victim, lowest sum of priorities, fewest victims, youngest, by name.
func (t *Table) cheaper(a, b candidate) int {
	highest := func(c candidate) int64 {
		if len(c.victims) == 0 {
			return math.MinInt64
		}
		return int64(c.victims[0].Class.Priority)
	}
	sum := func(c candidate) (s int64) {
		for _, v := range c.victims {
			// Shifted, so that two victims of negative priority cost more than one.
			s += int64(v.Class.Priority) + math.MaxInt32 + 1
		}
		return s
	}
	return cmp.Or(
		cmp.Compare(a.violations, b.violations),
		cmp.Compare(highest(a), highest(b)),
		cmp.Compare(sum(a), sum(b)),
		cmp.Compare(len(a.victims), len(b.victims)),
		cmp.Compare(started(b), started(a)),
		strings.Compare(t.rows[a.row].name, t.rows[b.row].name),
	)
}

// started answers when the longest running of the most important victims started, in seconds.
func started(c candidate) int64 {
	earliest := int64(math.MaxInt64)
	for _, v := range c.victims {
		if v.Class.Priority == c.victims[0].Class.Priority && v.Start != 0 {
			earliest = min(earliest, v.Start)
		}
	}
	return earliest
}
