package rules

import "slices"

// place is one value of a topology key.
type place struct{ key, value string }

// interPod is what pod affinity rules say about places.
type interPod struct {
	forbidden map[place]bool // by standing pods' anti-affinity
	avoided   map[place]bool // by the pod's own
	wanted    map[place]int  // per affinity term's key: pods that match all terms
	first     bool           // nothing matches anywhere, and the pod would match itself
}

// interPodFilter keeps pods together and apart as required by them and by those that stand.
var interPodFilter = filter{name: "InterPodAffinity", helps: NodeAdded | NodeChanged | PodGone | PodPlaced | PodChanged,
	prepare: func(c *cycle) Verdict {
		p, ip := c.Pod, &c.inter
		*ip = interPod{}
		if len(p.affinity)+len(p.anti) == 0 && c.Table.anti == 0 {
			return Verdict{}
		}
		ip.forbidden, ip.avoided, ip.wanted = map[place]bool{}, map[place]bool{}, map[place]int{}
		for _, n := range c.Table.nodes {
			if n.anti == 0 && len(p.affinity)+len(p.anti) == 0 {
				continue
			}
			for _, other := range n.Pods {
				for i := range other.anti {
					t := &other.anti[i]
					if value, ok := n.Labels[t.key]; ok && t.matches(p, c.Namespaces) {
						ip.forbidden[place{t.key, value}] = true
					}
				}
				for i := range p.anti {
					t := &p.anti[i]
					if value, ok := n.Labels[t.key]; ok && t.matches(other, c.Namespaces) {
						ip.avoided[place{t.key, value}] = true
					}
				}
				if len(p.affinity) > 0 && c.matchesAll(p, other) {
					for i := range p.affinity {
						if value, ok := n.Labels[p.affinity[i].key]; ok {
							ip.wanted[place{p.affinity[i].key, value}]++
						}
					}
				}
			}
		}
		ip.first = len(ip.wanted) == 0 && c.matchesAll(p, p)
		return Verdict{}
	},
	check: func(c *cycle, n *Node) Verdict {
		ip := &c.inter
		for i := range c.Pod.affinity {
			key := c.Pod.affinity[i].key
			value, ok := n.Labels[key]
			if !ok || !ip.first && ip.wanted[place{key, value}] == 0 {
				return Verdict{Reasons: []string{"node(s) didn't match pod affinity rules"}, Final: true}
			}
		}
		for i := range c.Pod.anti {
			key := c.Pod.anti[i].key
			if value, ok := n.Labels[key]; ok && ip.avoided[place{key, value}] {
				return Verdict{Reasons: []string{"node(s) didn't match pod anti-affinity rules"}}
			}
		}
		for at := range ip.forbidden {
			if value, ok := n.Labels[at.key]; ok && value == at.value {
				return Verdict{Reasons: []string{"node(s) didn't satisfy existing pods anti-affinity rules"}}
			}
		}
		return Verdict{}
	}}

func (c *cycle) matchesAll(p, other *Pod) bool {
	for i := range p.affinity {
		if !p.affinity[i].matches(other, c.Namespaces) {
			return false
		}
	}
	return true
}

// interPodScore adds up what the pod and the standing pods would like, place by place.
var interPodScore = score{name: "InterPodAffinity", weight: 2, rank: func(c *cycle, nodes []*Node, values []int64) {
	p := c.Pod
	own := len(p.preferred)+len(p.avoided) > 0
	if !own && c.Table.pulls == 0 {
		return
	}
	liked := map[place]int64{}
	for _, n := range c.Table.nodes {
		for _, other := range n.Pods {
			add := func(t *term, whose *Pod, weight int64) {
				if value, ok := n.Labels[t.key]; ok && t.matches(whose, c.Namespaces) {
					liked[place{t.key, value}] += weight
				}
			}
			for i := range p.preferred {
				add(&p.preferred[i].term, other, p.preferred[i].weight)
			}
			for i := range p.avoided {
				add(&p.avoided[i].term, other, -p.avoided[i].weight)
			}
			for i := range other.affinity {
				add(&other.affinity[i], p, 1)
			}
			for i := range other.preferred {
				add(&other.preferred[i].term, p, other.preferred[i].weight)
			}
			for i := range other.avoided {
				add(&other.avoided[i].term, p, -other.avoided[i].weight)
			}
		}
	}
	if len(liked) == 0 {
		return
	}
	for i, n := range nodes {
		for at, weight := range liked {
			if value, ok := n.Labels[at.key]; ok && value == at.value {
				values[i] += weight
			}
		}
	}
	least, most := slices.Min(values), slices.Max(values)
	for i, v := range values {
		values[i] = 0
		if most > least {
			values[i] = 100 * (v - least) / (most - least)
		}
	}
}}
