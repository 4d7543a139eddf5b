package devices

import (
	"fmt"
	"slices"

	"github.com/sextant-k8s/sextant/pkg/kubelet/topology"
)

// Ask is what one decision about one resource of one container is made from.
type Ask struct {
	Resource, Pod, Container string
	Need                     int
	// Registered: a plugin has told of this resource in this life of the kubelet.
	Registered bool
	// Healthy devices and the NUMA nodes each is near; none is near all.
	Healthy map[string]topology.Mask
	// Taken are those of all containers; Own those this container has already.
	Taken map[string]bool
	Own   []string
	// Reusable are those of the pod's init containers, which have run before this one starts.
	Reusable []string
	// Nodes are where to take from if that can be.
	Nodes topology.Mask
}

// Choice is what to give: Must surely, and as many more of Among as are missing; the plugin is asked which it prefers.
type Choice struct {
	// Keep: the container has what it needs.
	Keep  bool
	Must  []string
	Among []string
	// Then is where to take what Among has too few of, in this order.
	Then []string
}

func (c Choice) String() string {
	if c.Keep {
		return "keep"
	}
	return fmt.Sprintf("must=%v among=%v then=%v", c.Must, c.Among, c.Then)
}

// decide tells which devices a container can have. The words of its errors are upstream's.
func decide(a Ask) (Choice, error) {
	if len(a.Own) > 0 {
		if a.Need != len(a.Own) {
			return Choice{}, fmt.Errorf("pod %q container %q changed request for resource %q from %d to %d", a.Pod, a.Container, a.Resource, len(a.Own), a.Need)
		}
		switch {
		case !a.Registered:
			return Choice{}, fmt.Errorf("cannot allocate unregistered device %s", a.Resource)
		case len(a.Healthy) == 0:
			return Choice{}, fmt.Errorf("no healthy devices present; cannot allocate unhealthy devices %s", a.Resource)
		case slices.ContainsFunc(a.Own, func(id string) bool { _, ok := a.Healthy[id]; return !ok }):
			return Choice{}, fmt.Errorf("previously allocated devices are no longer healthy; cannot allocate unhealthy devices %s", a.Resource)
		}
		return Choice{Keep: true}, nil
	}
	switch {
	case !a.Registered:
		return Choice{}, fmt.Errorf("cannot allocate unregistered device %s", a.Resource)
	case len(a.Healthy) == 0:
		return Choice{}, fmt.Errorf("no healthy devices present; cannot allocate unhealthy devices %s", a.Resource)
	}
	var c Choice
	reused := map[string]bool{}
	for _, id := range sorted(a.Reusable) {
		if _, ok := a.Healthy[id]; ok && len(c.Must) < a.Need {
			c.Must = append(c.Must, id)
			reused[id] = true
		}
	}
	var near, far, anywhere []string
	for id, mask := range a.Healthy {
		switch {
		case a.Taken[id] || reused[id]:
		case a.Nodes == 0:
			anywhere = append(anywhere, id)
		case mask == 0:
			anywhere = append(anywhere, id)
		case mask&a.Nodes != 0:
			near = append(near, id)
		default:
			far = append(far, id)
		}
	}
	missing := a.Need - len(c.Must)
	if have := len(near) + len(far) + len(anywhere); have < missing {
		return Choice{}, fmt.Errorf("requested number of devices unavailable for %s. Requested: %d, Available: %d", a.Resource, missing, have)
	}
	near, far, anywhere = sorted(near), sorted(far), sorted(anywhere)
	switch {
	case missing == 0:
	case missing <= len(near):
		c.Among = near
	case a.Nodes == 0:
		c.Among = anywhere
	default:
		c.Must = append(c.Must, near...)
		c.Among, c.Then = anywhere, far
		if len(anywhere) == 0 {
			c.Among, c.Then = far, nil
		}
	}
	return c, nil
}

// settle makes the final choice: what must be, what the plugin prefers of what may be, then the first of the rest.
func settle(c Choice, need int, preferred []string) []string {
	out := slices.Clone(c.Must)
	have := map[string]bool{}
	for _, id := range out {
		have[id] = true
	}
	take := func(from []string, ok func(string) bool) {
		for _, id := range from {
			if len(out) < need && !have[id] && ok(id) {
				have[id], out = true, append(out, id)
			}
		}
	}
	take(preferred, func(id string) bool { return slices.Contains(c.Among, id) })
	always := func(string) bool { return true }
	take(c.Among, always)
	take(c.Then, always)
	return sorted(out)
}

// hints are the sets of NUMA nodes from which need devices can be had; those of the fewest nodes are preferred.
func hints(a Ask, nodes []int) []topology.Hint {
	if len(a.Own) > 0 {
		if len(a.Own) != a.Need {
			return []topology.Hint{}
		}
		return around(nodes, a.Need, func(s topology.Mask) (total, free int, ok bool) {
			for _, id := range a.Own {
				if m := a.Healthy[id]; m != 0 && m&s == 0 {
					return 0, 0, false
				}
			}
			return a.Need, a.Need, true
		})
	}
	located, free := false, 0
	for id, m := range a.Healthy {
		located = located || m != 0
		if !a.Taken[id] || slices.Contains(a.Reusable, id) {
			free++
		}
	}
	if !located {
		return nil
	}
	if free < a.Need {
		return []topology.Hint{}
	}
	return around(nodes, a.Need, func(s topology.Mask) (int, int, bool) {
		total, free, reused := 0, 0, 0
		for id, m := range a.Healthy {
			if m == 0 || m&s == 0 {
				continue
			}
			total++
			if slices.Contains(a.Reusable, id) {
				reused++
				free++
			} else if !a.Taken[id] {
				free++
			}
		}
		// What the pod has already must be within.
		return total, free, reused == len(a.Reusable)
	})
}

// around tries every set of nodes: count tells how many devices it has in all and how many are to be had.
func around(nodes []int, need int, count func(topology.Mask) (total, free int, ok bool)) []topology.Hint {
	out := []topology.Hint{}
	least := len(nodes) + 1
	for set := 1; set < 1<<len(nodes); set++ {
		var m topology.Mask
		for i, n := range nodes {
			if set>>i&1 == 1 {
				m |= topology.MaskOf(n)
			}
		}
		total, free, ok := count(m)
		if total >= need {
			least = min(least, m.Count())
		}
		if ok && free >= need {
			out = append(out, topology.Hint{Nodes: m})
		}
	}
	for i := range out {
		out[i].Preferred = out[i].Nodes.Count() == least
	}
	return out
}

func sorted(l []string) []string {
	out := slices.Clone(l)
	slices.Sort(out)
	return out
}
