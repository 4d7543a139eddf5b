package rules

import (
	"slices"
	"strings"
)

// Explanation says, node by node, why a pod fits or not, and what would change it.
type Explanation struct {
	Pod  string `json:"pod"`
	Plan string `json:"plan"`
	// Node is where the pod would go now; Message says why there is none.
	Node    string `json:"node,omitempty"`
	Message string `json:"message,omitempty"`
	// Nominated and Victims tell of an eviction that would make room.
	Nominated string        `json:"nominated,omitempty"`
	Victims   []string      `json:"victims,omitempty"`
	Nodes     []NodeVerdict `json:"nodes"`
}

// NodeVerdict is what the plugins say of one node: all that refuse it, or its score.
type NodeVerdict struct {
	Name     string        `json:"name"`
	Fits     bool          `json:"fits"`
	Score    int64         `json:"score,omitempty"`
	Refusals []NodeRefusal `json:"refusals,omitempty"`
}

// NodeRefusal is one plugin's reasons, and advice for people. Evictable says that evicting pods may change it.
type NodeRefusal struct {
	Plugin    string   `json:"plugin"`
	Reasons   []string `json:"reasons"`
	Advice    string   `json:"advice,omitempty"`
	Evictable bool     `json:"evictable,omitempty"`
}

// Explain decides like Decide, and asks every plugin about every node, not only the first that refuses. It changes nothing.
func Explain(s Snapshot) (Explanation, error) {
	if s.Table.nodes > 0 {
		s.Table.view(s.Pod, s.Profile) // so that no glance at some of the nodes decides
	}
	plan, err := Decide(s)
	if err != nil {
		return Explanation{}, err
	}
	out := Explanation{Pod: s.Pod.Key, Plan: plan.String(), Node: plan.Node, Message: plan.Message, Nominated: plan.Nominated, Nodes: []NodeVerdict{}}
	for _, p := range plan.Victims {
		out.Victims = append(out.Victims, p.Key)
	}
	if s.Table.nodes == 0 {
		return out, nil
	}
	v := s.Table.view(s.Pod, s.Profile)
	scores := map[int32]int64{}
	for _, st := range v.rank(s.Pod.Key, nil) {
		for _, r := range st.place.rows {
			scores[r] = st.score + v.seats[r].direct
		}
	}
	dear := mostDear
	for r := range s.Table.rows {
		if s.Table.rows[r].node == nil {
			continue
		}
		verdict := NodeVerdict{Name: s.Table.rows[r].name}
		for _, no := range v.allRefusals(int32(r), s.Pod.Key, &dear) {
			verdict.Refusals = append(verdict.Refusals, NodeRefusal{no.Plugin, no.Reasons, no.Advice, !no.Final})
		}
		if len(verdict.Refusals) == 0 {
			verdict.Fits, verdict.Score = true, scores[int32(r)]
		}
		out.Nodes = append(out.Nodes, verdict)
	}
	slices.SortFunc(out.Nodes, func(a, b NodeVerdict) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// mostDear bounds the rows of an explanation that dear checks are asked about.
const mostDear = 64

var notAsked = &Verdict{Plugin: "DynamicResources", Reasons: []string{"not asked: whether the devices are to be had was tried on enough other nodes"}}

// allRefusals asks each plugin about a row.
func (v *View) allRefusals(r int32, key string, dear *int) []*Verdict {
	if v.refuse != nil {
		return []*Verdict{v.refuse}
	}
	var out []*Verdict
	if v.only != nil && !slices.Contains(v.only, v.table.rows[r].name) {
		out = append(out, v.outside)
	}
	v.describe(r)
	place := &Place{tuple: slices.Clone(v.tuple)}
	for i := range v.parts {
		part := &v.parts[i]
		var no *Verdict
		if part.Check != nil {
			no = part.Check(r)
		}
		if no == nil && part.CheckPlace != nil {
			no = part.CheckPlace(place)
		}
		if no == nil && part.Late != nil && len(out) == 0 {
			if *dear--; *dear < 0 {
				no = notAsked
			} else {
				no = part.Late(r)
			}
		}
		if no != nil {
			out = append(out, no)
		}
	}
	if len(out) == 0 {
		if no := v.ask(r, key); no != nil { // pods nominated to the node come first
			out = append(out, &Verdict{Plugin: no.Plugin, Reasons: no.Reasons, Advice: "room there is kept for a pod that preempted others; " + no.Advice})
		}
	}
	return out
}
