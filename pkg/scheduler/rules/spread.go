package rules

import (
	"fmt"
	"math"
	"slices"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// constraint is a topology spread constraint of a class, with the tally of the pods it means.
type constraint struct {
	key  string
	skew int64
	// A constraint counts pods only on nodes that meet the pod's node affinity, and, with taints, whose taints it tolerates.
	affinity, taints bool
	minDomains       int64
	pods             labels.Selector
	self             int64 // 1 when the pod counts itself
	sum              *tally
	there            []bool // by domain, while they are counted
}

// podTopologySpread refuses nodes that would make the pods of a set more uneven than a constraint allows, and prefers places with few
// of them: by the pod's soft constraints, or, where it has none at all, by host and zone among the pods of its Service or controller.
var podTopologySpread = &Plugin{Name: "PodTopologySpread", Weight: 2, Points: []Point{PreFilter, Filter, PreScore, Score},
	Helps: NodeAdded | NodeChanged | PodGone | PodPlaced, Prepare: func(v *View) Part {
		hard, soft := v.constraints(v1.DoNotSchedule), v.constraints(v1.ScheduleAnyway)
		own := len(v.class.spec.TopologySpreadConstraints) > 0
		whole := own || v.profile.Spread != nil // every key must be there
		if len(hard) == 0 && len(soft) == 0 {
			return Part{}
		}
		var part Part
		if len(hard) > 0 {
			v.count(hard, true, true)
			part.CheckPlace = func(p *Place) *Verdict { return uneven(hard, p) }
			part.Wakes = func(c *Class, e Event) bool { return spreadWakes(c, hard, e) }
		}
		if len(soft) > 0 {
			v.count(soft, whole, false)
			part.Rank = func(places []*Place, out []int64) { rankSpread(soft, whole, places, out) }
		}
		return part
	}}

var (
	noTopologyKey = &Verdict{Plugin: "PodTopologySpread", Reasons: []string{"node(s) didn't match pod topology spread constraints (missing required label)"},
		Final: true, Advice: "give the node the labels of the pod's topologyKeys"}
	tooUneven = &Verdict{Plugin: "PodTopologySpread", Reasons: []string{"node(s) didn't match pod topology spread constraints"},
		Advice: "make room in the topology domains with fewer of the pods, or allow a larger maxSkew"}
)

// uneven refuses a place that would exceed a hard constraint.
func uneven(hard []constraint, p *Place) *Verdict {
	for i := range hard {
		k := &hard[i]
		n, ok := k.sum.at(p)
		if !ok {
			return noTopologyKey
		}
		least, any := k.sum.least()
		switch {
		case int64(k.sum.domains) < k.minDomains:
			least = 0
		case !any:
			continue
		}
		if n+k.self-least > k.skew {
			return tooUneven
		}
	}
	return nil
}

func spreadWakes(c *Class, hard []constraint, e Event) bool {
	if e.Pod == nil {
		return true
	}
	if e.Pod.Class.Namespace != c.Namespace {
		return false
	}
	return slices.ContainsFunc(hard, func(k constraint) bool { return k.pods.Matches(e.Pod.Class.labels) })
}

// constraints answers the pod's own constraints of one kind, or, when it has none of either, the profile's.
func (v *View) constraints(when v1.UnsatisfiableConstraintAction) []constraint {
	from := v.class.spec.TopologySpreadConstraints
	var siblings labels.Selector
	if len(from) == 0 {
		if siblings = v.table.siblings(v.class); siblings == nil {
			return nil
		}
		if from = v.profile.Spread; from == nil {
			from = systemSpread
		}
	}
	var out []constraint
	for i := range from {
		x := &from[i]
		if x.WhenUnsatisfiable != when {
			continue
		}
		k := constraint{key: x.TopologyKey, skew: int64(x.MaxSkew), affinity: true, minDomains: 1, pods: siblings}
		if siblings == nil {
			k.pods = addKeys(selector(x.LabelSelector), v.class.labels.asMap(), x.MatchLabelKeys, true)
		}
		if x.MinDomains != nil {
			k.minDomains = int64(*x.MinDomains)
		}
		k.taints = x.NodeTaintsPolicy != nil && *x.NodeTaintsPolicy == v1.NodeInclusionPolicyHonor
		k.affinity = x.NodeAffinityPolicy == nil || *x.NodeAffinityPolicy == v1.NodeInclusionPolicyHonor
		if k.pods.Matches(v.class.labels) {
			k.self = 1
		}
		out = append(out, k)
	}
	return out
}

// systemSpread is upstream's spreading of pods without constraints.
var systemSpread = []v1.TopologySpreadConstraint{
	{TopologyKey: v1.LabelHostname, WhenUnsatisfiable: v1.ScheduleAnyway, MaxSkew: 3},
	{TopologyKey: v1.LabelTopologyZone, WhenUnsatisfiable: v1.ScheduleAnyway, MaxSkew: 5},
}

// count gives each constraint its tally. With whole, only nodes with every key count.
func (v *View) count(ks []constraint, whole, filter bool) {
	t := v.table
	match := v.required()
	tolerations := v.class.spec.Tolerations
	var keys []*topology
	for i := range ks {
		keys = append(keys, t.topology(ks[i].key))
	}
	for i := range ks {
		k := &ks[i]
		pods, ns := k.pods, v.class.Namespace
		counter := t.counter(fmt.Sprintf("spread/%s/%s", ns, pods), true, t.byNamespace[ns], func(c *Class) int64 {
			if c.Namespace == ns && pods.Matches(c.labels) {
				return 1
			}
			return 0
		})
		y := tally{ranks: filter}
		// Soft constraints count the pods of one host on every node that has one.
		if y.own = !filter && k.key == v1.LabelHostname; !y.own && (len(ks) > 1 && whole || k.affinity && match != nil || k.taints) {
			y.allows = func(r int32) bool {
				if whole {
					for _, o := range keys {
						if o.of[r] < 0 {
							return false
						}
					}
				}
				return (!k.affinity || match == nil || match(r)) && (!k.taints || hardTaint(tolerations, t.rows[r].taints) == nil)
			}
		}
		k.sum = v.tally(counter, k.key, y)
	}
}

// rankSpread scores places by how many pods of the set are near.
func rankSpread(soft []constraint, whole bool, places []*Place, out []int64) {
	ignored := make([]bool, len(places))
	nodes := 0
	for i, p := range places {
		for j := range soft {
			if _, ok := soft[j].sum.at(p); !ok && whole {
				ignored[i] = true
			}
		}
		if !ignored[i] {
			nodes += len(p.rows)
		}
	}
	weights := make([]float64, len(soft))
	for j := range soft {
		n := nodes
		if !soft[j].sum.own {
			n = soft[j].domains(places, ignored)
		}
		weights[j] = math.Log(float64(n + 2))
	}
	most, least := int64(0), int64(math.MaxInt64)
	for i, p := range places {
		if ignored[i] {
			continue
		}
		sum := 0.0
		for j := range soft {
			if n, ok := soft[j].sum.at(p); ok {
				sum += float64(n)*weights[j] + float64(soft[j].skew-1)
			}
		}
		out[i] = int64(math.Round(sum))
		most, least = max(most, out[i]), min(least, out[i])
	}
	for i := range places {
		switch {
		case ignored[i]:
			out[i] = 0
		case most == 0:
			out[i] = 100
		default:
			out[i] = 100 * (most + least - out[i]) / most
		}
	}
}

// domains answers in how many domains of the key there are places.
func (k *constraint) domains(places []*Place, ignored []bool) int {
	if k.sum.inline { // every row is a domain
		n := 0
		for i, p := range places {
			if _, ok := k.sum.at(p); ok && !ignored[i] {
				n += len(p.rows)
			}
		}
		return n
	}
	n := 0
	k.there = append(k.there[:0], make([]bool, len(k.sum.key.nodes))...)
	for i, p := range places {
		if d := p.tuple[k.sum.slot]; d >= 0 && !ignored[i] && !k.there[d] {
			k.there[d] = true
			n++
		}
	}
	return n
}
