package rules

import (
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/version"
	"k8s.io/component-helpers/nodedeclaredfeatures"
	"k8s.io/component-helpers/nodedeclaredfeatures/types"
)

// release is the version whose nodes need not declare what all of them can do.
var release = version.MajorMinor(1, 37)

// needs answers the features that a node must declare to run a pod, sorted.
func needs(p *v1.Pod) []string {
	framework := nodedeclaredfeatures.DefaultFramework
	set, err := framework.InferForPodScheduling(&types.PodInfo{Spec: &p.Spec, Status: &p.Status}, release)
	if err != nil || set.IsEmpty() {
		return nil
	}
	names, err := framework.Unmap(set)
	if err != nil {
		return nil
	}
	return names
}

// nodeDeclaredFeatures holds a pod that uses what only some nodes can do to nodes that declare it.
var nodeDeclaredFeatures = &Plugin{Name: "NodeDeclaredFeatures", ByShape: true, Points: []Point{PreFilter, Filter}, Helps: NodeAdded | NodeChanged, Prepare: func(v *View) Part {
	wanted := v.class.spec.needs
	if len(wanted) == 0 {
		return Part{}
	}
	known := map[string]*Verdict{}
	return Part{Check: func(r int32) *Verdict {
		var lacks []string
		for _, feature := range wanted {
			if !declares(v.table.rows[r].node, feature) {
				lacks = append(lacks, feature)
			}
		}
		if len(lacks) == 0 {
			return nil
		}
		list := strings.Join(lacks, ", ")
		if known[list] == nil {
			known[list] = &Verdict{Plugin: "NodeDeclaredFeatures", Reasons: []string{"node declared features check failed - unsatisfied requirements: " + list},
				Final: true, Advice: "run it on nodes whose kubelet declares " + list + " in status.declaredFeatures"}
		}
		return known[list]
	}}
}}

func declares(n *v1.Node, feature string) bool {
	for _, f := range n.Status.DeclaredFeatures {
		if f == feature {
			return true
		}
	}
	return false
}
