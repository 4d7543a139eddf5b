package rules

import "time"

// schedulingGates keeps pods with gates out of the queue; see Gated.
var schedulingGates = &Plugin{Name: "SchedulingGates", Points: []Point{PreEnqueue}}

// prioritySort orders the queue; see Before.
var prioritySort = &Plugin{Name: "PrioritySort", Points: []Point{QueueSort}}

// GangScheduling names the plugin that admits pods of a gang together or not at all; the shell does it, for it spans several decisions.
const GangScheduling = "GangScheduling"

var gangScheduling = &Plugin{Name: GangScheduling, Points: []Point{PreEnqueue, Reserve, Permit}}

// topologyPlacement and placementPods find and weigh the topology domains of a gang; gangScheduling does that too.
var (
	topologyPlacement = &Plugin{Name: "TopologyPlacementGenerator", Points: []Point{PlacementGenerate}}
	placementPods     = &Plugin{Name: "PodGroupPodsCount", Points: []Point{PlacementScore}}
)

// defaultBinder writes bindings; the shell does it.
var defaultBinder = &Plugin{Name: "DefaultBinder", Points: []Point{Bind}}

// Before says whether a pod that came at one time is decided before another that came at another: by priority, then by age.
func Before(a *Pod, since time.Time, b *Pod, other time.Time) bool {
	if a.Class.Priority != b.Class.Priority {
		return a.Class.Priority > b.Class.Priority
	}
	return since.Before(other)
}
