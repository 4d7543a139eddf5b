package rules

// Plugin is one rule under upstream's name. A new one is a value in a file of its own and a line in Plugins.
type Plugin struct {
	Name string
	// Weight is of its score; 0 without one.
	Weight int64
	// Points are the extension points it serves.
	Points []Point
	// Helps are the kinds of events that may make a pod fit which the plugin refused. Of those that tell of a node, only the ones
	// after which Check lets that node pass wake the pod.
	Helps Kind
	// ByShape says that all there is of it is Check, and that this reads no more of a class than what all classes of its shape share.
	ByShape bool
	// Prepare reads the class of v once and answers what the plugin has to do for it; the zero Part has nothing to do.
	Prepare func(v *View) Part
}

// Part is a plugin made ready for one class. Its functions read the table as it is when they are called.
type Part struct {
	// Refuse, when not nil, refuses every node.
	Refuse *Verdict
	// Only, when not nil, are the names of the nodes that can pass at all.
	Only []string
	// Check asks about one row by itself: its answer may depend on nothing but the row.
	Check func(r int32) *Verdict
	// CheckPlace asks about all nodes of a place alike.
	CheckPlace func(p *Place) *Verdict
	// Late is asked about the best row only, because asking is dear; the next best comes when it refuses.
	Late func(r int32) *Verdict
	// Score ranks a row by itself, 0 to 100.
	Score func(r int32) int64
	// Rank scores places against each other, 0 to 100 each; out starts as zeros. Every node of a place gets the same.
	Rank func(places []*Place, out []int64)
	// Wakes says whether an event of the plugin's kinds that Check cannot answer may help pods of a class. nil: every one.
	Wakes func(c *Class, e Event) bool
}

// Verdict is why a plugin refuses a node, in upstream's words. nil passes.
type Verdict struct {
	Plugin  string
	Reasons []string
	// Final says that evicting pods from the node cannot change it.
	Final bool
	// Advice says what would make the pod fit, for people.
	Advice string
}

// Plugins are all there are, in the order in which they are asked. Those that refuse by place come after those that refuse by row.
func Plugins() []*Plugin {
	return []*Plugin{
		schedulingGates, prioritySort, gangScheduling, topologyPlacement, placementPods, nodeUnschedulable, nodeName, taintToleration, nodeAffinity, nodePorts, nodeResourcesFit,
		nodeDeclaredFeatures, volumeRestrictions, nodeVolumeLimits, volumeBinding, volumeZone, podTopologySpread, interPodAffinity, dynamicResources,
		defaultPreemption, nodeResourcesBalancedAllocation, imageLocality, defaultBinder,
	}
}

// Point is an extension point under upstream's name.
type Point string

// The extension points.
const (
	PreEnqueue Point = "PreEnqueue"
	QueueSort  Point = "QueueSort"
	PreFilter  Point = "PreFilter"
	Filter     Point = "Filter"
	PostFilter Point = "PostFilter"
	PreScore   Point = "PreScore"
	Score      Point = "Score"
	Reserve    Point = "Reserve"
	Permit     Point = "Permit"
	PreBind    Point = "PreBind"
	Bind       Point = "Bind"
	PostBind   Point = "PostBind"

	PlacementGenerate Point = "PlacementGenerate"
	PlacementScore    Point = "PlacementScore"
)

// Kind are kinds of events, as bits.
type Kind uint32

// The kinds of events.
const (
	NodeAdded Kind = 1 << iota
	NodeChanged
	PodGone
	PodPlaced
	PodChanged // the waiting pod itself
	StorageChanged
	DevicesChanged
	AllKinds Kind = 1<<iota - 1
)

// Event is something that happened and may make a waiting pod fit.
type Event struct {
	Kind Kind
	Node string // NodeAdded, NodeChanged, PodGone, PodPlaced
	Pod  *Pod   // PodGone, PodPlaced
}
