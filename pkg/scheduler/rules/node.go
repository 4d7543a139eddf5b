package rules

import (
	"slices"

	v1 "k8s.io/api/core/v1"
	corev1 "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/klog/v2"
)

// nodeUnschedulable refuses cordoned nodes.
var nodeUnschedulable = &Plugin{Name: "NodeUnschedulable", ByShape: true, Points: []Point{Filter}, Helps: NodeAdded | NodeChanged, Prepare: func(v *View) Part {
	if tolerates(v.class.spec.Tolerations, &v1.Taint{Key: v1.TaintNodeUnschedulable, Effect: v1.TaintEffectNoSchedule}) {
		return Part{}
	}
	cordoned := &Verdict{Plugin: "NodeUnschedulable", Reasons: []string{"node(s) were unschedulable"}, Final: true, Advice: "uncordon the node"}
	return Part{Check: func(r int32) *Verdict {
		if v.table.rows[r].cordoned {
			return cordoned
		}
		return nil
	}}
}}

// nodeName holds a pod that asks for a node by name to it.
var nodeName = &Plugin{Name: "NodeName", ByShape: true, Points: []Point{Filter}, Helps: NodeAdded, Prepare: func(v *View) Part {
	wanted := v.class.spec.NodeName
	if wanted == "" {
		return Part{}
	}
	other := &Verdict{Plugin: "NodeName", Reasons: []string{"node(s) didn't match the requested node name"}, Final: true, Advice: "clear spec.nodeName"}
	return Part{Check: func(r int32) *Verdict {
		if v.table.rows[r].name != wanted {
			return other
		}
		return nil
	}}
}}

// taintToleration refuses nodes with a taint the pod does not tolerate, and prefers those with few it would rather avoid.
var taintToleration = &Plugin{Name: "TaintToleration", ByShape: true, Weight: 3, Points: []Point{Filter, PreScore, Score}, Helps: NodeAdded | NodeChanged, Prepare: func(v *View) Part {
	tolerations := v.class.spec.Tolerations
	refusals := map[v1.Taint]*Verdict{}
	raw := v.raw(func(r int32) int32 {
		n := int32(0)
		taints := v.table.rows[r].taints
		for i := range taints {
			if taints[i].Effect == v1.TaintEffectPreferNoSchedule && !toleratesSoft(tolerations, &taints[i]) {
				n++
			}
		}
		return n
	})
	return Part{
		Check: func(r int32) *Verdict {
			taints := v.table.rows[r].taints
			if len(taints) == 0 {
				return nil
			}
			taint := hardTaint(tolerations, taints)
			if taint == nil {
				return nil
			}
			key := v1.Taint{Key: taint.Key, Value: taint.Value, Effect: taint.Effect}
			no := refusals[key]
			if no == nil {
				no = &Verdict{Plugin: "TaintToleration", Reasons: []string{"node(s) had untolerated taint(s)"}, Final: true,
					Advice: "tolerate the taint " + key.ToString() + ", or take it off the node"}
				refusals[key] = no
			}
			return no
		},
		Rank: func(places []*Place, out []int64) {
			for i, p := range places {
				out[i] = int64(p.Raw(raw))
			}
			proportional(out, true)
		},
	}
}}

func tolerates(tolerations []v1.Toleration, taint *v1.Taint) bool {
	return corev1.TolerationsTolerateTaint(klog.Logger{}, tolerations, taint, true)
}

// toleratesSoft is asked of taints that only advise: tolerations for other effects say nothing about them.
func toleratesSoft(tolerations []v1.Toleration, taint *v1.Taint) bool {
	for i := range tolerations {
		if e := tolerations[i].Effect; (e == "" || e == v1.TaintEffectPreferNoSchedule) && tolerations[i].ToleratesTaint(klog.Logger{}, taint, true) {
			return true
		}
	}
	return false
}

func hardTaint(tolerations []v1.Toleration, taints []v1.Taint) *v1.Taint {
	for i := range taints {
		t := &taints[i]
		if t.Effect != v1.TaintEffectPreferNoSchedule && !tolerates(tolerations, t) {
			return t
		}
	}
	return nil
}

// nodeAffinity holds a pod to the nodes its selector and required affinity name, and adds the weights of the preferred terms met.
var nodeAffinity = &Plugin{Name: "NodeAffinity", ByShape: true, Weight: 2, Points: []Point{PreFilter, Filter, PreScore, Score}, Helps: NodeAdded | NodeChanged, Prepare: func(v *View) Part {
	var part Part
	missed := &Verdict{Plugin: "NodeAffinity", Reasons: []string{"node(s) didn't match Pod's node affinity/selector"}, Final: true,
		Advice: "give the node the labels that the pod's nodeSelector and node affinity ask for, or ask for less"}
	enforced := &Verdict{Plugin: "NodeAffinity", Reasons: []string{"node(s) didn't match scheduler-enforced node affinity"}, Final: true,
		Advice: "the scheduler's configuration adds node affinity to every pod of this profile"}
	added, extra := v.profile.addedAffinity()
	match := v.required()
	if match != nil || added != nil {
		part.Check = func(r int32) *Verdict {
			n := v.table.rows[r].node
			if added != nil && !added.Match(n) {
				return enforced
			}
			if match != nil && !match(r) {
				return missed
			}
			return nil
		}
	}
	names, conflict := namesOf(v.class.spec)
	part.Only = names
	if conflict {
		part.Refuse = &Verdict{Plugin: "NodeAffinity", Reasons: []string{"pod affinity terms conflict"}, Final: true, Advice: "the terms name no node in common"}
	}
	terms := extra
	if a := v.class.spec.Affinity; a != nil && a.NodeAffinity != nil {
		terms = append(slices.Clip(terms), a.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution...)
	}
	if len(terms) == 0 {
		return part
	}
	preferred, err := nodeaffinity.NewPreferredSchedulingTerms(terms)
	if err != nil {
		return part
	}
	raw := v.raw(func(r int32) int32 { return int32(preferred.Score(v.table.rows[r].node)) })
	part.Rank = func(places []*Place, out []int64) {
		for i, p := range places {
			out[i] = int64(p.Raw(raw))
		}
		proportional(out, false)
	}
	return part
}}

// required answers whether a row meets the pod's own selector and affinity; nil when the pod has none.
func (v *View) required() func(r int32) bool {
	spec := v.class.spec
	a := spec.Affinity
	if len(spec.NodeSelector) == 0 && (a == nil || a.NodeAffinity == nil || a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution == nil) {
		return nil
	}
	need := nodeaffinity.NewRequiredNodeAffinity(spec.NodeSelector, a)
	return func(r int32) bool {
		ok, err := need.Match(v.table.rows[r].node)
		return ok && err == nil
	}
}

// namesOf answers the nodes that required affinity names, nil when it does not go by name; and whether it names none in common.
func namesOf(spec *wishes) (names []string, conflict bool) {
	a := spec.Affinity
	if a == nil || a.NodeAffinity == nil || a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution == nil {
		return nil, false
	}
	for _, term := range a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms {
		var own []string
		for _, f := range term.MatchFields {
			if f.Key != metadataName || f.Operator != v1.NodeSelectorOpIn {
				continue
			}
			if own == nil {
				own = slices.Clone(f.Values)
			} else {
				own = slices.DeleteFunc(own, func(name string) bool { return !slices.Contains(f.Values, name) })
			}
		}
		if own == nil {
			return nil, false // this term goes by labels, so any node may do
		}
		names = append(names, own...)
		if names == nil {
			names = []string{}
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)
	return names, names != nil && len(names) == 0
}

const metadataName = "metadata.name"

// nodePorts refuses nodes on which a host port of the pod is taken.
var nodePorts = &Plugin{Name: "NodePorts", ByShape: true, Points: []Point{PreFilter, Filter}, Helps: NodeAdded | PodGone, Prepare: func(v *View) Part {
	wanted := v.class.ports
	if len(wanted) == 0 {
		return Part{}
	}
	taken := &Verdict{Plugin: "NodePorts", Reasons: []string{"node(s) didn't have free ports for the requested pod ports"},
		Advice: "ask for another hostPort, or for none"}
	return Part{Check: func(r int32) *Verdict {
		for held := range v.table.rows[r].ports {
			for _, p := range wanted {
				if p.conflicts(held) {
					return taken
				}
			}
		}
		return nil
	}}
}}

// proportional turns counts into 0 to 100 by the largest, reversed when few is good.
func proportional(values []int64, reverse bool) {
	most := slices.Max(values)
	for i, v := range values {
		switch {
		case most == 0 && reverse:
			values[i] = 100
		case most == 0:
		case reverse:
			values[i] = 100 - 100*v/most
		default:
			values[i] = 100 * v / most
		}
	}
}
