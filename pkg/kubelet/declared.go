package kubelet

import (
	"maps"
	"slices"

	"k8s.io/apimachinery/pkg/util/version"
	"k8s.io/component-helpers/nodedeclaredfeatures"
	"k8s.io/component-helpers/nodedeclaredfeatures/types"
)

// declaring is the gate of declaring anything.
const declaring = "NodeDeclaredFeatures"

// able are the features that some nodes have and this one has too, by the names of upstream's gates, each with the gates it rests on:
// restarts of all containers, changes of the sizes of pods and of init containers, and the newest stream protocols. The others are
// off in this release, or a runtime's.
var able = map[string][]string{
	"ExtendWebSocketsToKubelet":               nil,
	"InPlacePodLevelResourcesVerticalScaling": {"InPlacePodVerticalScaling", "PodLevelResources"},
	"InPlacePodVerticalScalingInitContainers": {"InPlacePodVerticalScaling"},
	"RestartAllContainersOnContainerExits":    {"ContainerRestartRules"},
}

// declared are the features the node tells of, sorted: of those it has, and which no gate of its configuration turns off, the ones that
// nodes of its release still need to declare.
func declared(release string, gates map[string]bool) []string {
	v, err := version.ParseSemantic(release)
	if err != nil {
		return nil
	}
	off := func(gate string) bool {
		on, set := gates[gate]
		return set && !on
	}
	has := types.FeatureGateMap{}
	for name, rests := range able {
		has[name] = !off(declaring) && !off(name) && !slices.ContainsFunc(rests, off)
	}
	return nodedeclaredfeatures.DefaultFramework.DiscoverNodeFeatures(&types.NodeConfiguration{FeatureGates: has, Version: v})
}

// idle are the gates of a configuration which change nothing here but what is declared, sorted: what is here is on and what is not
// is off. A gate that is set to that is not among them.
func idle(gates map[string]bool) []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(gates)), func(name string) bool {
		_, has := able[name]
		return name == declaring || has && gates[name]
	})
}
