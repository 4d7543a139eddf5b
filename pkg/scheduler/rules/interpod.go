package rules

import (
	"fmt"
	"math"
	"slices"
)

// interPodAffinity keeps pods together and apart as required by them and by those that stand, and adds up what both would like.
var interPodAffinity = &Plugin{Name: "InterPodAffinity", Weight: 2, Points: []Point{PreFilter, Filter, PreScore, Score},
	Helps: NodeAdded | NodeChanged | PodGone | PodPlaced, Prepare: func(v *View) Part {
		var part Part
		n := v.prepareInterPod()
		if len(n.together)+len(n.apart)+len(n.unwelcome) > 0 {
			part.CheckPlace = n.check
		}
		part.Wakes = func(c *Class, e Event) bool { return wakesTogether(v.table, c, e) }
		if likes := v.prepareLikes(); len(likes) > 0 {
			part.Rank = func(places []*Place, out []int64) { rankLikes(likes, places, out) }
		}
		return part
	}}

var (
	notTogether = &Verdict{Plugin: "InterPodAffinity", Reasons: []string{"node(s) didn't match pod affinity rules"}, Final: true,
		Advice: "run a pod there that the pod's affinity asks for, and give the node the topologyKey's label"}
	notApart = &Verdict{Plugin: "InterPodAffinity", Reasons: []string{"node(s) didn't match pod anti-affinity rules"},
		Advice: "move away the pods that this pod's anti-affinity avoids, or add a topology domain without them"}
	notWelcome = &Verdict{Plugin: "InterPodAffinity", Reasons: []string{"node(s) didn't satisfy existing pods anti-affinity rules"},
		Advice: "move away the pods whose anti-affinity avoids this pod, or add a topology domain without them"}
)

// interPod are the sums that decide about required affinity.
type interPod struct {
	together  []*tally // per affinity term: pods that match all terms
	self      bool     // the pod would match its own terms
	apart     []*tally // per anti-affinity term: pods that match it
	unwelcome []*tally // per topology key: standing pods' anti-affinity terms that match the pod
}

func (v *View) prepareInterPod() *interPod {
	t, c := v.table, v.class
	n := &interPod{}
	if len(c.affinity) > 0 {
		all := func(other *Class) int64 {
			for i := range c.affinity {
				if !c.affinity[i].matches(t, other) {
					return 0
				}
			}
			return 1
		}
		name := "together"
		for i := range c.affinity {
			name += "/" + c.affinity[i].String()
		}
		k := t.counter(name, false, t.meant(c.affinity), all)
		for i := range c.affinity {
			n.together = append(n.together, v.tally(k, c.affinity[i].key, tally{}))
		}
		n.self = all(c) > 0
	}
	for i := range c.anti {
		x := &c.anti[i]
		k := t.counter("apart/"+x.String(), false, t.meant(c.anti[i:i+1]), func(other *Class) int64 {
			if x.matches(t, other) {
				return 1
			}
			return 0
		})
		n.apart = append(n.apart, v.tally(k, x.key, tally{}))
	}
	for _, key := range v.ties.unwelcome {
		k := t.counter(fmt.Sprintf("unwelcome/%s/%x", key, c.id), false, t.carriers.all, func(other *Class) int64 {
			terms := int64(0)
			for i := range other.anti {
				if x := &other.anti[i]; x.key == key && x.matches(t, c) {
					terms++
				}
			}
			return terms
		})
		n.unwelcome = append(n.unwelcome, v.tally(k, key, tally{}))
	}
	return n
}

// meant answers the classes that terms may mean: those of the namespaces they name.
func (t *Table) meant(terms []term) map[*Class]struct{} {
	for i := range terms {
		if terms[i].namespaces != nil {
			return t.known()
		}
	}
	out := map[*Class]struct{}{}
	for i := range terms {
		for _, ns := range terms[i].names {
			for c := range t.byNamespace[ns] {
				out[c] = struct{}{}
			}
		}
	}
	return out
}

func (n *interPod) check(p *Place) *Verdict {
	met := true
	for _, y := range n.together {
		pods, ok := y.at(p)
		if !ok {
			return notTogether
		}
		met = met && pods > 0
	}
	if !met {
		// The first of a group that wants to be together may stand anywhere.
		for _, y := range n.together {
			if y.total > 0 || !n.self {
				return notTogether
			}
		}
	}
	for _, y := range n.apart {
		if pods, _ := y.at(p); pods > 0 {
			return notApart
		}
	}
	for _, y := range n.unwelcome {
		if terms, _ := y.at(p); terms > 0 {
			return notWelcome
		}
	}
	return nil
}

// wakesTogether says whether an event may help a pod that pods of its own or other pods' terms kept out.
func wakesTogether(t *Table, c *Class, e Event) bool {
	if e.Pod == nil {
		return true
	}
	other := e.Pod.Class
	if e.Kind == PodPlaced {
		for i := range c.affinity {
			if c.affinity[i].matches(t, other) {
				return true
			}
		}
		return false
	}
	for i := range c.anti {
		if c.anti[i].matches(t, other) {
			return true
		}
	}
	for i := range other.anti {
		if other.anti[i].matches(t, c) {
			return true
		}
	}
	// The last pod of a group may have gone, so that this one is the first.
	for i := range c.affinity {
		if c.affinity[i].matches(t, other) {
			return true
		}
	}
	return false
}

// prepareLikes answers, per topology key, the weights of what the pod and the standing pods prefer.
func (v *View) prepareLikes() []*tally {
	t, c := v.table, v.class
	own := len(c.preferred)+len(c.avoided) > 0
	keys := slices.Clone(v.ties.liked)
	if !own && v.profile.IgnorePreferred {
		keys = nil
	}
	for _, list := range [][]weightedTerm{c.preferred, c.avoided} {
		for i := range list {
			if !slices.Contains(keys, list[i].key) {
				keys = append(keys, list[i].key)
			}
		}
	}
	among := t.carriers.all
	if own {
		among = t.known()
	}
	var out []*tally
	for _, key := range keys {
		k := t.counter(fmt.Sprintf("likes/%s/%d/%t/%x", key, v.profile.HardAffinity, v.profile.IgnorePreferred, c.id), false, among, func(other *Class) int64 {
			return v.likes(key, other)
		})
		out = append(out, v.tally(k, key, tally{}))
	}
	return out
}

// likes answers the weight by which class v.class and another want to be (or not, when negative) in one domain of the key.
func (v *View) likes(key string, other *Class) int64 {
	t, c, sum := v.table, v.class, int64(0)
	add := func(x *term, whom *Class, weight int64) {
		if x.key == key && x.matches(t, whom) {
			sum += weight
		}
	}
	for i := range c.preferred {
		add(&c.preferred[i].term, other, int64(c.preferred[i].weight))
	}
	for i := range c.avoided {
		add(&c.avoided[i].term, other, -int64(c.avoided[i].weight))
	}
	if v.profile.IgnorePreferred && len(c.preferred)+len(c.avoided) == 0 {
		return sum
	}
	for i := range other.affinity {
		add(&other.affinity[i], c, int64(v.profile.HardAffinity))
	}
	for i := range other.preferred {
		add(&other.preferred[i].term, c, int64(other.preferred[i].weight))
	}
	for i := range other.avoided {
		add(&other.avoided[i].term, c, -int64(other.avoided[i].weight))
	}
	return sum
}

func rankLikes(likes []*tally, places []*Place, out []int64) {
	least, most := int64(math.MaxInt64), int64(math.MinInt64)
	for i, p := range places {
		for _, y := range likes {
			n, _ := y.at(p)
			out[i] += n
		}
		least, most = min(least, out[i]), max(most, out[i])
	}
	for i := range places {
		if most > least {
			out[i] = int64(100 * float64(out[i]-least) / float64(most-least))
		} else {
			out[i] = 0
		}
	}
}
