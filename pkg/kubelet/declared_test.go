package kubelet

import (
	"slices"
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/version"
	"k8s.io/component-helpers/nodedeclaredfeatures"
	"k8s.io/component-helpers/nodedeclaredfeatures/types"
)

// TestDeclared: the list is sorted, nothing in it is misspelt, and it satisfies what a pod with a rule to restart all asks of a node, and
// a change of a pod's own size.
func TestDeclared(t *testing.T) {
	got := declared(Release, nil)
	if len(got) != len(able) || !slices.IsSorted(got) {
		t.Errorf("%v is declared of %v", got, able)
	}
	if list := declared("nonsense", nil); list != nil {
		t.Error(list)
	}
	grown := func(cpu string) *types.PodInfo {
		return &types.PodInfo{Spec: &v1.PodSpec{Resources: &v1.ResourceRequirements{Limits: v1.ResourceList{v1.ResourceCPU: resource.MustParse(cpu)}}}}
	}
	own, err := nodedeclaredfeatures.DefaultFramework.InferForPodUpdate(grown("1"), grown("2"), version.MustParseSemantic(Release))
	if err != nil || own.IsEmpty() {
		t.Fatal(own, err)
	}
	rules := []v1.ContainerRestartRule{{Action: v1.ContainerRestartRuleActionRestartAllContainers}}
	pod := &v1.PodSpec{Containers: []v1.Container{{Name: "c", RestartPolicyRules: rules}}}
	needs, err := nodedeclaredfeatures.DefaultFramework.InferForPodScheduling(&types.PodInfo{Spec: pod}, version.MustParseSemantic(Release))
	if err != nil || needs.IsEmpty() {
		t.Fatal(needs, err)
	}
	for declares, want := range map[string]bool{"": false, "all": true} {
		n := &v1.Node{}
		if declares != "" {
			n.Status.DeclaredFeatures = got
		}
		for _, what := range []nodedeclaredfeatures.FeatureSet{needs, own} {
			if m, err := nodedeclaredfeatures.DefaultFramework.MatchNode(what, n); err != nil || m.IsMatch != want {
				t.Errorf("a node that declares %v matches: %+v (%v)", n.Status.DeclaredFeatures, m, err)
			}
		}
	}
}

// TestGates: what a configuration turns off, or what that rests on, is not declared; whoever sets a gate that does more elsewhere is told.
func TestGates(t *testing.T) {
	const sockets, pods, inits, restarts = "ExtendWebSocketsToKubelet", "InPlacePodLevelResourcesVerticalScaling", "InPlacePodVerticalScalingInitContainers",
		"RestartAllContainersOnContainerExits"
	all := declared(Release, nil)
	for _, tc := range []struct {
		gates         map[string]bool
		without, idle []string
	}{
		{nil, nil, nil},
		{map[string]bool{sockets: true, restarts: true}, nil, nil},
		{map[string]bool{restarts: false}, []string{restarts}, []string{restarts}},
		{map[string]bool{"InPlacePodVerticalScaling": false}, []string{pods, inits}, []string{"InPlacePodVerticalScaling"}},
		{map[string]bool{"PodLevelResources": false, sockets: true}, []string{pods}, []string{"PodLevelResources"}},
		{map[string]bool{"NodeDeclaredFeatures": false}, []string{sockets, pods, inits, restarts}, nil},
		{map[string]bool{"SomethingElse": true, "Another": false}, nil, []string{"Another", "SomethingElse"}},
	} {
		var want []string
		for _, name := range all {
			gone := slices.ContainsFunc(tc.without, func(gate string) bool { return gateOf(t, name) == gate })
			if !gone {
				want = append(want, name)
			}
		}
		if got := declared(Release, tc.gates); !slices.Equal(got, want) {
			t.Errorf("%v: declared %v, want %v", tc.gates, got, want)
		}
		if got := idle(tc.gates); !slices.Equal(got, tc.idle) {
			t.Errorf("%v: told of %v, want %v", tc.gates, got, tc.idle)
		}
	}
}

// gateOf is the gate that a declared feature hangs on.
func gateOf(t *testing.T, feature string) string {
	t.Helper()
	for gate := range able {
		if !slices.Contains(declared(Release, map[string]bool{gate: false}), feature) {
			return gate
		}
	}
	t.Fatal("no gate turns off " + feature)
	return ""
}
