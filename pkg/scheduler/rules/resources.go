package rules

import (
	"math"
	"slices"
	"strconv"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// nodeResourcesFit refuses nodes without room for what the pod requests, and scores the others by the profile's strategy.
var nodeResourcesFit = &Plugin{Name: "NodeResourcesFit", ByShape: true, Weight: 1, Points: []Point{PreFilter, Filter, PreScore, Score}, Helps: NodeAdded | NodeChanged | PodGone | DevicesChanged, Prepare: func(v *View) Part {
	t := v.table
	wanted := make([]want, 0, len(v.class.want))
	for _, w := range v.class.want {
		if !v.profile.ignores(t.names[w.kind]) {
			wanted = append(wanted, w)
		}
	}
	// What a node does not offer at all may come from devices.
	served := make([]bool, len(wanted))
	for i, w := range wanted {
		served[i] = w.kind >= firstExtended && v.profile.On("DynamicResources", Filter) && t.Devices.classFor(t.names[w.kind]) != ""
	}
	known := map[string]*Verdict{}
	lacking := make([]byte, 0, 16)
	refuse := func(full bool, lack []byte, r int32) *Verdict {
		// The words depend on what lacks, and whether the empty node would do; the advice on no more than the largest gap.
		key := string(lack)
		if no := known[key]; no != nil {
			return no
		}
		no := &Verdict{Plugin: "NodeResourcesFit"}
		var advice []string
		if full {
			no.Reasons = append(no.Reasons, "Too many pods")
			advice = append(advice, "end a pod of the node")
		}
		for i := 0; i+1 < len(lack); i += 2 {
			w := wanted[lack[i]]
			no.Reasons = append(no.Reasons, "Insufficient "+string(t.names[w.kind]))
			if lack[i+1] == 1 { // more than the empty node has: no eviction makes that fit
				no.Final = true
				advice = append(advice, "request less "+string(t.names[w.kind])+" than "+t.quantity(w.kind, w.n)+": no node like this has as much")
			} else {
				advice = append(advice, "free "+string(t.names[w.kind])+" on the node, or request less than "+t.quantity(w.kind, w.n))
			}
		}
		no.Advice = strings.Join(advice, "; ")
		known[key] = no
		return no
	}
	part := Part{Check: func(r int32) *Verdict {
		n := &t.rows[r]
		full := int64(len(n.pods))+1 > n.maxPods
		lacking = lacking[:0]
		for i, w := range wanted {
			if a := n.amount(w.kind); w.n > a.capacity-a.used && (!served[i] || a.capacity > 0) {
				beyond := byte(0)
				if w.n > a.capacity {
					beyond = 1
				}
				lacking = append(lacking, byte(i), beyond)
			}
		}
		switch {
		case !full && len(lacking) == 0:
			return nil
		case full:
			lacking = append(lacking, 0xff) // odd length: too many pods as well
		}
		return refuse(full, lacking, r)
	}}
	part.Score = v.profile.Fit.scorer(v)
	return part
}}

// quantity prints an amount as users write it.
func (t *Table) quantity(kind int32, n int64) string {
	switch t.names[kind] {
	case v1.ResourceCPU:
		return milli(n).String()
	case v1.ResourceMemory, v1.ResourceEphemeralStorage:
		return bytes(n).String()
	}
	return resource.NewQuantity(n, resource.DecimalSI).String()
}

// Weighted is a resource and how much it counts.
type Weighted struct {
	Name   v1.ResourceName
	Weight int64
}

// Strategy is how a node's use becomes a score: LeastAllocated, MostAllocated or RequestedToCapacityRatio with a shape.
type Strategy struct {
	Type      string
	Resources []Weighted
	Shape     []Bend
}

// Bend is a point of a shape: a utilization of 0 to 100 and its score of 0 to 100.
type Bend struct{ Utilization, Score int64 }

// use answers, for a resource by its number, what the pod and all that stand on the row ask together, and what the row has.
func (v *View) use(kind int32, r int32) (asked, capacity int64) {
	n, c := &v.table.rows[r], v.class
	switch kind {
	case cpu:
		return n.scored[0] + c.scored[0], n.base[cpu].capacity
	case memory:
		return n.scored[1] + c.scored[1], n.base[memory].capacity
	}
	a := n.amount(kind)
	return a.used + v.wants(kind), a.capacity
}

func (v *View) wants(kind int32) int64 {
	for _, w := range v.class.want {
		if w.kind == kind {
			return w.n
		}
	}
	return 0
}

// scorer answers a row's score. Extended resources that the pod does not ask for do not count.
func (s *Strategy) scorer(v *View) func(r int32) int64 {
	type counting struct {
		kind   int32
		weight int64
	}
	var kinds []counting
	for _, w := range s.Resources {
		k := v.table.kind(w.Name)
		if k < firstExtended || v.wants(k) > 0 {
			kinds = append(kinds, counting{k, w.Weight})
		}
	}
	if (s.Type == "" || s.Type == "LeastAllocated") && len(kinds) == 2 && kinds[0].kind == cpu && kinds[1].kind == memory {
		return v.leastOfTwo(kinds[0].weight, kinds[1].weight)
	}
	one := s.one()
	ratio := s.Type == "RequestedToCapacityRatio"
	return func(r int32) int64 {
		sum, weights := int64(0), int64(0)
		for _, k := range kinds {
			asked, capacity := v.use(k.kind, r)
			if capacity == 0 {
				continue
			}
			n := one(asked, capacity)
			if ratio && n <= 0 {
				continue
			}
			sum += n * k.weight
			weights += k.weight
		}
		switch {
		case weights == 0:
			return 0
		case ratio:
			return int64(math.Round(float64(sum) / float64(weights)))
		}
		return sum / weights
	}
}

// leastOfTwo is what nearly all score by, CPU and memory of which the least is allocated, without detours.
func (v *View) leastOfTwo(weighCPU, weighMemory int64) func(r int32) int64 {
	t, asked := v.table, v.class.scored
	return func(r int32) int64 {
		n := &t.rows[r]
		sum, weights := int64(0), int64(0)
		if all := n.base[cpu].capacity; all > 0 {
			weights += weighCPU
			if left := all - n.scored[0] - asked[0]; left > 0 {
				sum += left * 100 / all * weighCPU
			}
		}
		if all := n.base[memory].capacity; all > 0 {
			weights += weighMemory
			if left := all - n.scored[1] - asked[1]; left > 0 {
				sum += left * 100 / all * weighMemory
			}
		}
		switch weights {
		case 0:
			return 0
		case 2: // a division less
			return sum >> 1
		}
		return sum / weights
	}
}

func (s *Strategy) one() func(asked, capacity int64) int64 {
	switch s.Type {
	case "MostAllocated":
		return func(asked, capacity int64) int64 { return min(asked, capacity) * 100 / capacity }
	case "RequestedToCapacityRatio":
		return func(asked, capacity int64) int64 { return s.bent(min(asked*100/capacity, 100)) }
	}
	return func(asked, capacity int64) int64 {
		if asked > capacity {
			return 0
		}
		return (capacity - asked) * 100 / capacity
	}
}

// bent follows the shape's straight lines.
func (s *Strategy) bent(utilization int64) int64 {
	for i, b := range s.Shape {
		if utilization > b.Utilization {
			continue
		}
		if i == 0 {
			return b.Score
		}
		a := s.Shape[i-1]
		return a.Score + (b.Score-a.Score)*(utilization-a.Utilization)/(b.Utilization-a.Utilization)
	}
	return s.Shape[len(s.Shape)-1].Score
}

// nodeResourcesBalancedAllocation prefers the node whose resources become more evenly used by the pod than they were.
var nodeResourcesBalancedAllocation = &Plugin{Name: "NodeResourcesBalancedAllocation", Weight: 1, Points: []Point{PreScore, Score}, Prepare: func(v *View) Part {
	var kinds []int32
	asks := false
	for _, w := range v.profile.Balanced {
		k := v.table.kind(w.Name)
		asks = asks || v.wants(k) > 0
		if k < firstExtended || v.wants(k) > 0 {
			kinds = append(kinds, k)
		}
	}
	if !asks {
		return Part{}
	}
	shares := make([]float64, 0, len(kinds))
	// balance is 1 for a row whose resources are all used to the same share, less the further apart they are.
	balance := func(r int32, with bool) float64 {
		shares = shares[:0]
		for _, k := range kinds {
			a := v.table.rows[r].amount(k)
			if a.capacity == 0 {
				continue
			}
			if with {
				a.used += v.wants(k)
			}
			shares = append(shares, min(float64(a.used)/float64(a.capacity), 1))
		}
		switch len(shares) {
		case 0, 1:
			return 1
		case 2:
			return 1 - math.Abs(shares[0]-shares[1])/2
		}
		mean, spread := 0.0, 0.0
		for _, s := range shares {
			mean += s / float64(len(shares))
		}
		for _, s := range shares {
			spread += (s - mean) * (s - mean) / float64(len(shares))
		}
		return 1 - math.Sqrt(spread)
	}
	if len(kinds) == 2 && kinds[0] == cpu && kinds[1] == memory {
		return Part{Score: v.balanceOfTwo()}
	}
	return Part{Score: func(r int32) int64 { return int64(50 + (balance(r, true)-balance(r, false))*50) }}
}}

// balanceOfTwo is what nearly all score by, CPU and memory evenly used, without detours.
func (v *View) balanceOfTwo() func(r int32) int64 {
	t := v.table
	wantCPU, wantMemory := v.wants(cpu), v.wants(memory)
	return func(r int32) int64 {
		c, m := t.rows[r].base[cpu], t.rows[r].base[memory]
		if c.capacity == 0 || m.capacity == 0 {
			return 50
		}
		ofCPU, ofMemory := float64(c.capacity), float64(m.capacity)
		before := 1 - math.Abs(min(float64(c.used)/ofCPU, 1)-min(float64(m.used)/ofMemory, 1))/2
		after := 1 - math.Abs(min(float64(c.used+wantCPU)/ofCPU, 1)-min(float64(m.used+wantMemory)/ofMemory, 1))/2
		return int64(50 + (after-before)*50)
	}
}

const (
	megabyte     = 1024 * 1024
	smallImage   = 23 * megabyte
	bigImageEach = 1000 * megabyte
)

// imageLocality prefers nodes that hold the pod's images, the less so the fewer nodes hold them.
var imageLocality = &Plugin{Name: "ImageLocality", Weight: 1, Points: []Point{Score}, Prepare: func(v *View) Part {
	images := v.class.spec.images
	most := int64(bigImageEach * len(images))
	// A place keeps which of the images its nodes hold, and how large; how many other nodes hold them is asked when ranking.
	type held struct{ sizes []int64 }
	var sets []held
	byName := map[string]int32{}
	key := make([]byte, 0, 64)
	raw := v.raw(func(r int32) int32 {
		have := v.table.rows[r].images
		if len(have) == 0 {
			return -1
		}
		key = key[:0]
		any := false
		for _, name := range images {
			size, ok := have[name]
			any = any || ok
			key = strconv.AppendInt(key, size, 36)
			key = append(key, ' ')
		}
		if !any {
			return -1
		}
		i, ok := byName[string(key)]
		if !ok {
			h := held{make([]int64, len(images))}
			for j, name := range images {
				h.sizes[j] = have[name]
			}
			i = int32(len(sets))
			sets, byName[string(key)] = append(sets, h), i
		}
		return i
	})
	return Part{Rank: func(places []*Place, out []int64) {
		for i, p := range places {
			n := p.Raw(raw)
			if n < 0 {
				continue
			}
			sum := int64(0)
			for j, size := range sets[n].sizes {
				sum += int64(float64(size) * float64(v.table.images[images[j]].nodes) / float64(v.table.nodes))
			}
			out[i] = 100 * (min(max(sum, smallImage), most) - smallImage) / (most - smallImage)
		}
	}}
}}

// normalImage gives a name without a tag the tag it means.
func normalImage(name string) string {
	if strings.LastIndexByte(name, ':') <= strings.LastIndexByte(name, '/') {
		return name + ":latest"
	}
	return name
}

// ignores says whether the profile leaves an extended resource out of the filter.
func (p *Profile) ignores(name v1.ResourceName) bool {
	if slices.Contains(builtin[:], name) {
		return false
	}
	group, _, _ := strings.Cut(string(name), "/")
	return slices.Contains(p.IgnoredResources, string(name)) || slices.Contains(p.IgnoredGroups, group)
}
