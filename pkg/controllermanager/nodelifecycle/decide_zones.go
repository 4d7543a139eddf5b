package nodelifecycle

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// mode is how a zone is.
type mode int

const (
	normal  mode = iota // most of its nodes are well
	partial             // many are not: it may be the network between them and us
	full                // none is
)

// String is the mode in words.
func (m mode) String() string { return [...]string{"normal", "partly down", "down"}[m] }

// zone is what is known of the nodes of one zone.
type zone struct {
	mode  mode
	nodes int
	rate  float32 // nodes that may be given up in a second
}

// zones is all of them, by name. In the dark, with not one node well anywhere, the fault is likelier ours than theirs:
// nothing is given up.
type zones struct {
	by   map[string]zone
	dark bool
}

// String shows the zones as tests do.
func (z zones) String() string {
	var b strings.Builder
	var names []string
	for n := range z.by {
		names = append(names, n)
	}
	slices.Sort(names)
	for _, n := range names {
		fmt.Fprintf(&b, "%s: %s, %g of %d nodes a second\n", strings.ReplaceAll(n, ":\x00:", "/"), z.by[n].mode, z.by[n].rate, z.by[n].nodes)
	}
	if z.dark {
		b.WriteString("dark\n")
	}
	return b.String()
}

// zoneOf names a node's zone.
func zoneOf(n *corev1.Node) string {
	region, name := n.Labels[corev1.LabelTopologyRegion], n.Labels[corev1.LabelTopologyZone]
	if region == "" && name == "" {
		return ""
	}
	return region + ":\x00:" + name
}

// assess says how the zones are.
func assess(nodes []*corev1.Node, c Config) zones {
	ready, silent := map[string]int{}, map[string]int{}
	out := zones{by: map[string]zone{}, dark: true}
	for _, n := range nodes {
		name := zoneOf(n)
		out.by[name] = zone{}
		switch {
		case statusOf(n, corev1.NodeReady) == corev1.ConditionTrue:
			ready[name]++
		default:
			silent[name]++
		}
	}
	for name := range out.by {
		z := zone{nodes: ready[name] + silent[name], rate: c.Rate}
		switch {
		case ready[name] == 0:
			z.mode = full
		case silent[name] > 2 && float32(silent[name])/float32(z.nodes) >= c.Unhealthy:
			z.mode, z.rate = partial, 0
			if z.nodes > c.Large {
				z.rate = c.SecondaryRate
			}
		}
		out.dark = out.dark && z.mode == full
		out.by[name] = z
	}
	if out.dark {
		for name, z := range out.by {
			z.rate = 0
			out.by[name] = z
		}
	}
	return out
}

// interval is how long a zone waits between two nodes that it gives up; ok is false if it gives up none.
func (z zone) interval() (d time.Duration, ok bool) {
	if z.rate <= 0 {
		return 0, false
	}
	return time.Duration(float64(time.Second) / float64(z.rate)), true
}
