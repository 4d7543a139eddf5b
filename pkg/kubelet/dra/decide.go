package dra

import (
	"fmt"
	"slices"
	"sort"
	"strings"

	v1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/dynamic-resource-allocation/resourceclaim"
)

// Work is what a driver is to do for claims.
type Work struct {
	Driver string
	Claims []types.UID
}

// Plan is what makes a pod's claims usable.
type Plan struct {
	// Prepare are the calls to make, by driver.
	Prepare []Work
	// Known are the claims as they will stand once that is done: those known before, with the pod added, and new ones.
	Known []ClaimInfoState
}

func (p Plan) String() string {
	var out []string
	for _, w := range p.Prepare {
		out = append(out, fmt.Sprintf("%s prepares %v", w.Driver, w.Claims))
	}
	for _, k := range p.Known {
		out = append(out, fmt.Sprintf("claim %s of %v by %v", k.ClaimName, sortedKeys(k.PodUIDs), sortedKeys(k.DriverState)))
	}
	return strings.Join(out, "; ")
}

// decide tells which drivers are to prepare which of a pod's claims. prepared holds, by claim, the drivers which have done
// so in this life of the kubelet.
func decide(pod *v1.Pod, claims []*resourcev1.ResourceClaim, known map[types.UID]ClaimInfoState, prepared map[types.UID]map[string]bool) (Plan, error) {
	var p Plan
	calls := map[string][]types.UID{}
	for _, c := range claims {
		if !resourceclaim.IsReservedForPod(pod, c, true) {
			return Plan{}, fmt.Errorf("pod %s(%s) is not allowed to use resource claim %s(%s)", pod.Name, pod.UID, c.Name, c.UID)
		}
		if c.Status.Allocation == nil {
			return Plan{}, fmt.Errorf("resource claim %s has not been allocated", c.Name)
		}
		info := ClaimInfoState{ClaimUID: c.UID, ClaimName: c.Name, Namespace: c.Namespace, PodUIDs: map[string]struct{}{}, DriverState: map[string]DriverState{}}
		if old, ok := known[c.UID]; ok {
			for uid := range old.PodUIDs {
				info.PodUIDs[uid] = struct{}{}
			}
			for name, st := range old.DriverState {
				info.DriverState[name] = st
			}
		}
		info.PodUIDs[string(pod.UID)] = struct{}{}
		for name, skip := range drivers(c, resourcev1.SkipNodeOperationNodePrepareResources) {
			if skip {
				continue // it has nothing to undo either
			}
			if _, ok := info.DriverState[name]; !ok {
				info.DriverState[name] = DriverState{}
			}
			if !prepared[c.UID][name] {
				calls[name] = append(calls[name], c.UID)
			}
		}
		p.Known = append(p.Known, info)
	}
	for _, name := range sortedKeys(calls) {
		p.Prepare = append(p.Prepare, Work{Driver: name, Claims: calls[name]})
	}
	return p, nil
}

// drivers are those of a claim's devices, and whether all devices of each do without an operation.
func drivers(c *resourcev1.ResourceClaim, operation resourcev1.SkipNodeOperation) map[string]bool {
	out := map[string]bool{}
	for _, r := range c.Status.Allocation.Devices.Results {
		skip := slices.Contains(r.SkipNodeOperations, operation) || slices.Contains(r.SkipNodeOperations, resourcev1.SkipNodeOperationAll)
		if all, ok := out[r.Driver]; ok {
			skip = skip && all
		}
		out[r.Driver] = skip
	}
	return out
}

// wanted are the requests of claims which a container names: by claim name in the pod's spec, "" for all of its requests.
// An extended resource may stand for a request of a claim of its own, named by its object.
func wanted(pod *v1.Pod, c *v1.Container) (claims map[string][]string, extended map[string][]string) {
	claims, extended = map[string][]string{}, map[string][]string{}
	for _, r := range c.Resources.Claims {
		claims[r.Name] = append(claims[r.Name], r.Request)
	}
	if st := pod.Status.ExtendedResourceClaimStatus; st != nil {
		for _, m := range st.RequestMappings {
			if m.ContainerName == c.Name {
				extended[st.ResourceClaimName] = append(extended[st.ResourceClaimName], m.RequestName)
			}
		}
	}
	return claims, extended
}

// serves tells whether a device is for a request: one which names none is for all of its claim, and a request of
// alternatives is meant by each of them.
func serves(d Device, request string) bool {
	return request == "" || len(d.RequestNames) == 0 || slices.ContainsFunc(d.RequestNames, func(n string) bool {
		return n == request || resourceclaim.BaseRequestRef(n) == request
	})
}

func sortedKeys[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	sort.Strings(out)
	return out
}
