package rules

import (
	"fmt"
	"slices"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	configv1 "k8s.io/kube-scheduler/config/v1"
	"sigs.k8s.io/yaml"
)

// Profile is a scheduler's name and how its pipeline is set up.
type Profile struct {
	Name string
	// Fit scores NodeResourcesFit; Balanced are the resources of NodeResourcesBalancedAllocation.
	Fit      Strategy
	Balanced []Weighted
	// Extended resources that NodeResourcesFit leaves to others, by name and by the part before the slash.
	IgnoredResources, IgnoredGroups []string
	// HardAffinity is the weight of standing pods' required affinity; with IgnorePreferred their preferences count only for
	// pods that have some of their own.
	HardAffinity    int32
	IgnorePreferred bool
	// Spread are the constraints of pods that have none; nil for upstream's own.
	Spread []v1.TopologySpreadConstraint
	// Added is node affinity that every pod of the profile has beside its own.
	Added *v1.NodeAffinity
	// BindTimeout is how long the binding of volumes may take, in seconds.
	BindTimeout int64
	// DeviceTimeout is how long devices are searched for on one node, 0 for ever; DeviceBindTimeout how long a pod waits for its devices
	// to be ready.
	DeviceTimeout, DeviceBindTimeout time.Duration
	// Candidates are the fewest nodes that preemption looks at: a percentage of all, and a number.
	MinCandidatesPercentage, MinCandidates int
	// Percentage of the nodes is enough to weigh for a pod unlike all before it, where so many fit; 0 leaves it to the size of the cluster.
	Percentage int

	plugins []*Plugin
	off     map[string]map[Point]bool
	weights map[string]int64
}

// DefaultProfile answers the profile of a scheduler that is not configured.
func DefaultProfile(name string) *Profile {
	both := []Weighted{{v1.ResourceCPU, 1}, {v1.ResourceMemory, 1}}
	return &Profile{
		Name: name, Fit: Strategy{Type: "LeastAllocated", Resources: both}, Balanced: both, HardAffinity: 1, BindTimeout: 600,
		DeviceTimeout: configv1.DynamicResourcesFilterTimeoutDefault, DeviceBindTimeout: configv1.DynamicResourcesBindingTimeoutDefault,
		MinCandidatesPercentage: 10, MinCandidates: 100,
		plugins: Plugins(), off: map[string]map[Point]bool{}, weights: map[string]int64{},
	}
}

// NewProfile reads a profile of the configuration file.
func NewProfile(from *configv1.KubeSchedulerProfile) (*Profile, error) {
	name := v1.DefaultSchedulerName
	if from.SchedulerName != nil {
		if name = *from.SchedulerName; name == "" {
			return nil, fmt.Errorf("schedulerName is empty")
		}
	}
	p := DefaultProfile(name)
	if n := from.PercentageOfNodesToScore; n != nil {
		p.Percentage = int(*n)
	}
	if from.Plugins != nil {
		if err := p.enable(from.Plugins); err != nil {
			return nil, err
		}
	}
	given := map[string]bool{}
	for i := range from.PluginConfig {
		if given[from.PluginConfig[i].Name] {
			return nil, fmt.Errorf("plugin %s has args twice", from.PluginConfig[i].Name)
		}
		given[from.PluginConfig[i].Name] = true
		if err := p.args(from.PluginConfig[i].Name, from.PluginConfig[i].Args.Raw); err != nil {
			return nil, fmt.Errorf("args of plugin %s: %w", from.PluginConfig[i].Name, err)
		}
	}
	return p, nil
}

// on says whether a plugin serves a point.
func (p *Profile) on(plugin *Plugin, at Point) bool { return !p.off[plugin.Name][at] }

// On says whether the named plugin serves a point in this profile.
func (p *Profile) On(name string, at Point) bool { return !p.off[name][at] }

// named answers a plugin, nil for an unknown one.
func (p *Profile) named(name string) *Plugin {
	for _, plugin := range p.plugins {
		if plugin.Name == name {
			return plugin
		}
	}
	return nil
}

func (p *Profile) weight(plugin *Plugin) int64 {
	if !p.on(plugin, Score) {
		return 0
	}
	if w, ok := p.weights[plugin.Name]; ok {
		return w
	}
	return plugin.Weight
}

// enable reads which plugins serve where. A point's own list wins over MultiPoint.
func (p *Profile) enable(from *configv1.Plugins) error {
	for _, set := range []struct {
		at   Point // empty: every point
		list configv1.PluginSet
	}{
		{"", from.MultiPoint}, {PreEnqueue, from.PreEnqueue}, {QueueSort, from.QueueSort}, {PreFilter, from.PreFilter}, {Filter, from.Filter},
		{PostFilter, from.PostFilter}, {PreScore, from.PreScore}, {Score, from.Score}, {Reserve, from.Reserve}, {Permit, from.Permit},
		{PreBind, from.PreBind}, {Bind, from.Bind}, {PostBind, from.PostBind},
	} {
		for _, disabled := range set.list.Disabled {
			for _, plugin := range p.plugins {
				if disabled.Name == plugin.Name || disabled.Name == "*" {
					p.turn(plugin, set.at, true)
				}
			}
		}
		for _, enabled := range set.list.Enabled {
			i := slices.IndexFunc(p.plugins, func(plugin *Plugin) bool { return plugin.Name == enabled.Name })
			if i < 0 {
				return fmt.Errorf("there is no plugin %q; known are %s", enabled.Name, p.pluginNames())
			}
			p.turn(p.plugins[i], set.at, false)
			if enabled.Weight != nil && *enabled.Weight > 0 && (set.at == "" || set.at == Score) {
				p.weights[enabled.Name] = int64(*enabled.Weight)
			}
		}
	}
	for _, must := range []struct {
		name string
		at   Point
	}{{"PrioritySort", QueueSort}, {"DefaultBinder", Bind}} {
		if p.off[must.name][must.at] {
			return fmt.Errorf("profile %s: no plugin is left for %s; %s is the only one there is", p.Name, must.at, must.name)
		}
	}
	return nil
}

func (p *Profile) turn(plugin *Plugin, at Point, off bool) {
	points := []Point{at}
	if at == "" {
		points = plugin.Points
	}
	if p.off[plugin.Name] == nil {
		p.off[plugin.Name] = map[Point]bool{}
	}
	for _, at := range points {
		p.off[plugin.Name][at] = off
	}
}

func (p *Profile) pluginNames() string {
	names := make([]string, len(p.plugins))
	for i, plugin := range p.plugins {
		names[i] = plugin.Name
	}
	return strings.Join(names, ", ")
}

// args reads the arguments of one plugin.
func (p *Profile) args(name string, raw []byte) error {
	if len(raw) == 0 {
		return nil
	}
	if !slices.ContainsFunc(p.plugins, func(plugin *Plugin) bool { return plugin.Name == name }) {
		return fmt.Errorf("there is no such plugin; known are %s", p.pluginNames())
	}
	var is metav1.TypeMeta
	if err := yaml.Unmarshal(raw, &is); err != nil {
		return err
	}
	if is.Kind != "" && is.Kind != name+"Args" || is.APIVersion != "" && is.APIVersion != configv1.SchemeGroupVersion.String() {
		return fmt.Errorf("want kind %sArgs of %s, got %s of %s", name, configv1.SchemeGroupVersion, is.Kind, is.APIVersion)
	}
	switch name {
	case "NodeResourcesFit":
		var a configv1.NodeResourcesFitArgs
		if err := yaml.UnmarshalStrict(raw, &a); err != nil {
			return err
		}
		p.IgnoredResources, p.IgnoredGroups = a.IgnoredResources, a.IgnoredResourceGroups
		if a.ScoringStrategy != nil {
			return p.Fit.read(a.ScoringStrategy)
		}
	case "NodeResourcesBalancedAllocation":
		var a configv1.NodeResourcesBalancedAllocationArgs
		if err := yaml.UnmarshalStrict(raw, &a); err != nil {
			return err
		}
		if len(a.Resources) > 0 {
			p.Balanced = weighted(a.Resources)
		}
	case "InterPodAffinity":
		var a configv1.InterPodAffinityArgs
		if err := yaml.UnmarshalStrict(raw, &a); err != nil {
			return err
		}
		if w := a.HardPodAffinityWeight; w != nil {
			if *w < 0 || *w > 100 {
				return fmt.Errorf("hardPodAffinityWeight: %d is not in [0-100]", *w)
			}
			p.HardAffinity = *w
		}
		p.IgnorePreferred = a.IgnorePreferredTermsOfExistingPods
	case "PodTopologySpread":
		var a configv1.PodTopologySpreadArgs
		if err := yaml.UnmarshalStrict(raw, &a); err != nil {
			return err
		}
		if a.DefaultingType == configv1.ListDefaulting {
			for i := range a.DefaultConstraints {
				if err := goodDefault(&a.DefaultConstraints[i]); err != nil {
					return fmt.Errorf("defaultConstraints[%d]: %w", i, err)
				}
			}
			p.Spread = append([]v1.TopologySpreadConstraint{}, a.DefaultConstraints...)
		} else if len(a.DefaultConstraints) > 0 {
			return fmt.Errorf("defaultConstraints need defaultingType List")
		}
	case "NodeAffinity":
		var a configv1.NodeAffinityArgs
		if err := yaml.UnmarshalStrict(raw, &a); err != nil {
			return err
		}
		p.Added = a.AddedAffinity
		if a.AddedAffinity == nil {
			break
		}
		if need := a.AddedAffinity.RequiredDuringSchedulingIgnoredDuringExecution; need != nil {
			if _, err := nodeaffinity.NewNodeSelector(need); err != nil {
				return fmt.Errorf("addedAffinity: %w", err)
			}
		}
		if _, err := nodeaffinity.NewPreferredSchedulingTerms(a.AddedAffinity.PreferredDuringSchedulingIgnoredDuringExecution); err != nil {
			return fmt.Errorf("addedAffinity: %w", err)
		}
	case "VolumeBinding":
		var a configv1.VolumeBindingArgs
		if err := yaml.UnmarshalStrict(raw, &a); err != nil {
			return err
		}
		if len(a.Shape) > 0 {
			return fmt.Errorf("shape: scoring by storage capacity is not served")
		}
		if a.BindTimeoutSeconds != nil && *a.BindTimeoutSeconds < 0 {
			return fmt.Errorf("bindTimeoutSeconds: %d is below 0", *a.BindTimeoutSeconds)
		}
		if a.BindTimeoutSeconds != nil {
			p.BindTimeout = *a.BindTimeoutSeconds
		}
	case "DynamicResources":
		var a configv1.DynamicResourcesArgs
		if err := yaml.UnmarshalStrict(raw, &a); err != nil {
			return err
		}
		if d := a.FilterTimeout; d != nil {
			if d.Duration < 0 {
				return fmt.Errorf("filterTimeout: %s is below 0", d.Duration)
			}
			p.DeviceTimeout = d.Duration
		}
		if d := a.BindingTimeout; d != nil {
			if d.Duration < time.Second {
				return fmt.Errorf("bindingTimeout: %s is below 1s", d.Duration)
			}
			p.DeviceBindTimeout = d.Duration
		}
	case "DefaultPreemption":
		var a configv1.DefaultPreemptionArgs
		if err := yaml.UnmarshalStrict(raw, &a); err != nil {
			return err
		}
		if n := a.MinCandidateNodesPercentage; n != nil {
			if *n < 0 || *n > 100 {
				return fmt.Errorf("minCandidateNodesPercentage: %d is not in [0-100]", *n)
			}
			p.MinCandidatesPercentage = int(*n)
		}
		if n := a.MinCandidateNodesAbsolute; n != nil {
			if *n < 0 {
				return fmt.Errorf("minCandidateNodesAbsolute: %d is below 0", *n)
			}
			p.MinCandidates = int(*n)
		}
		if p.MinCandidates == 0 && p.MinCandidatesPercentage == 0 {
			return fmt.Errorf("minCandidateNodesPercentage and minCandidateNodesAbsolute cannot both be 0")
		}
	default:
		return fmt.Errorf("the plugin takes none")
	}
	return nil
}

// goodDefault checks a constraint for pods that have none: whom it means is worked out for each pod.
func goodDefault(c *v1.TopologySpreadConstraint) error {
	switch {
	case c.LabelSelector != nil || len(c.MatchLabelKeys) > 0:
		return fmt.Errorf("labelSelector and matchLabelKeys are deduced, and cannot be given")
	case c.MaxSkew <= 0:
		return fmt.Errorf("maxSkew: %d is not above 0", c.MaxSkew)
	case c.TopologyKey == "":
		return fmt.Errorf("topologyKey is empty")
	case c.WhenUnsatisfiable != v1.DoNotSchedule && c.WhenUnsatisfiable != v1.ScheduleAnyway:
		return fmt.Errorf("whenUnsatisfiable: %q is not one of DoNotSchedule, ScheduleAnyway", c.WhenUnsatisfiable)
	}
	return nil
}

func weighted(from []configv1.ResourceSpec) []Weighted {
	out := make([]Weighted, len(from))
	for i, r := range from {
		out[i] = Weighted{v1.ResourceName(r.Name), max(r.Weight, 1)}
	}
	return out
}

func (s *Strategy) read(from *configv1.ScoringStrategy) error {
	switch from.Type {
	case "", configv1.LeastAllocated, configv1.MostAllocated:
	case configv1.RequestedToCapacityRatio:
		if from.RequestedToCapacityRatio == nil || len(from.RequestedToCapacityRatio.Shape) == 0 {
			return fmt.Errorf("scoringStrategy RequestedToCapacityRatio needs a shape")
		}
		for i, b := range from.RequestedToCapacityRatio.Shape {
			if b.Score < 0 || b.Score > 10 || b.Utilization < 0 || b.Utilization > 100 {
				return fmt.Errorf("shape[%d]: utilization goes from 0 to 100, score from 0 to 10", i)
			}
			if i > 0 && b.Utilization <= from.RequestedToCapacityRatio.Shape[i-1].Utilization {
				return fmt.Errorf("shape[%d]: utilization must grow", i)
			}
			s.Shape = append(s.Shape, Bend{int64(b.Utilization), int64(b.Score) * 10})
		}
	default:
		return fmt.Errorf("scoringStrategy: %q is not one of LeastAllocated, MostAllocated, RequestedToCapacityRatio", from.Type)
	}
	if from.Type != "" {
		s.Type = string(from.Type)
	}
	for i, r := range from.Resources {
		if r.Weight < 0 || r.Weight > 100 {
			return fmt.Errorf("resources[%d]: weight %d of %s is not in [1-100]", i, r.Weight, r.Name)
		}
	}
	if len(from.Resources) > 0 {
		s.Resources = weighted(from.Resources)
	}
	return nil
}

// addedAffinity answers the profile's own required node affinity and preferences.
func (p *Profile) addedAffinity() (*nodeaffinity.NodeSelector, []v1.PreferredSchedulingTerm) {
	if p.Added == nil {
		return nil, nil
	}
	var required *nodeaffinity.NodeSelector
	if need := p.Added.RequiredDuringSchedulingIgnoredDuringExecution; need != nil {
		required, _ = nodeaffinity.NewNodeSelector(need)
	}
	return required, p.Added.PreferredDuringSchedulingIgnoredDuringExecution
}
