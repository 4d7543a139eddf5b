package kubelet

import (
	"k8s.io/apimachinery/pkg/util/version"
	"k8s.io/component-helpers/nodedeclaredfeatures"
	"k8s.io/component-helpers/nodedeclaredfeatures/types"
)

// able are the features that some nodes have and this one has too, by the names of upstream's gates: restarts of all containers,
// changes of the sizes of pods and of init containers, and the newest stream protocols. The others are off in this release, or a
// runtime's.
var able = types.FeatureGateMap{"ExtendWebSocketsToKubelet": true, "InPlacePodLevelResourcesVerticalScaling": true,
	"InPlacePodVerticalScalingInitContainers": true, "RestartAllContainersOnContainerExits": true}

// declared are the features the node tells of, sorted: of those it has, the ones that nodes of its release still need to declare.
func declared(release string) []string {
	v, err := version.ParseSemantic(release)
	if err != nil {
		return nil
	}
	return nodedeclaredfeatures.DefaultFramework.DiscoverNodeFeatures(&types.NodeConfiguration{FeatureGates: able, Version: v})
}
