package rules

import (
	"maps"
	"math"
	"slices"
	"strings"
)

// resourcesFit refuses nodes without room for what the pod requests.
var resourcesFit = filter{name: "NodeResourcesFit", helps: NodeAdded | NodeChanged | PodGone | PodChanged, check: func(c *cycle, n *Node) Verdict {
	var v Verdict
	used, pods := c.Table.promised(n, c.Pod)
	if pods+1 > n.MaxPods {
		v.Reasons = append(v.Reasons, "Too many pods")
	}
	lack := func(name string, want, capacity, used int64) {
		if want > 0 && want > capacity-used {
			v.Reasons = append(v.Reasons, "Insufficient "+name)
			// More than the empty node has: no eviction makes that fit.
			v.Final = v.Final || want > capacity
		}
	}
	want := &c.Pod.Request
	lack("cpu", want.CPU, n.Capacity.CPU, used.CPU)
	lack("memory", want.Memory, n.Capacity.Memory, used.Memory)
	lack("ephemeral-storage", want.Storage, n.Capacity.Storage, used.Storage)
	if len(want.Extended) > 0 {
		for _, name := range slices.Sorted(maps.Keys(want.Extended)) {
			lack(string(name), want.Extended[name], n.Capacity.Extended[name], used.Extended[name])
		}
	}
	return v
}}

// leastAllocated prefers the node that would be emptiest, CPU and memory alike.
var leastAllocated = score{name: "NodeResourcesFit", weight: 1, rank: func(c *cycle, nodes []*Node, values []int64) {
	for i, n := range nodes {
		sum, kinds := int64(0), int64(0)
		for _, r := range [2][2]int64{
			{n.Capacity.CPU, n.Scored.CPU + c.Pod.Scored.CPU},
			{n.Capacity.Memory, n.Scored.Memory + c.Pod.Scored.Memory},
		} {
			if r[0] == 0 {
				continue
			}
			kinds++
			if r[1] <= r[0] {
				sum += (r[0] - r[1]) * 100 / r[0]
			}
		}
		if kinds > 0 {
			values[i] = sum / kinds
		}
	}
}}

// balancedAllocation prefers the node whose CPU and memory become more evenly used by the pod than they were.
var balancedAllocation = score{name: "NodeResourcesBalancedAllocation", weight: 1, rank: func(c *cycle, nodes []*Node, values []int64) {
	if c.Pod.Request.CPU == 0 && c.Pod.Request.Memory == 0 {
		return
	}
	for i, n := range nodes {
		before := balance(n, 0, 0)
		after := balance(n, c.Pod.Request.CPU, c.Pod.Request.Memory)
		values[i] = int64(50 + (after-before)*50)
	}
}}

// balance is 1 for a node that uses the same share of its CPU as of its memory, less the further they are apart.
func balance(n *Node, cpu, memory int64) float64 {
	if n.Capacity.CPU == 0 || n.Capacity.Memory == 0 {
		return 1
	}
	a := min(float64(n.Used.CPU+cpu)/float64(n.Capacity.CPU), 1)
	b := min(float64(n.Used.Memory+memory)/float64(n.Capacity.Memory), 1)
	return 1 - math.Abs(a-b)/2
}

const (
	megabyte     = 1024 * 1024
	smallImage   = 23 * megabyte
	bigImageEach = 1000 * megabyte
)

// imageLocality prefers nodes that hold the pod's images, the less so the fewer nodes hold them.
var imageLocality = score{name: "ImageLocality", weight: 1, rank: func(c *cycle, nodes []*Node, values []int64) {
	containers := int64(len(c.Pod.Spec.Containers) + len(c.Pod.Spec.InitContainers))
	for i, n := range nodes {
		var sum int64
		add := func(image string) {
			image = normalImage(image)
			if size, ok := n.Images[image]; ok {
				sum += int64(float64(size) * float64(c.Table.images[image]) / float64(len(c.Table.nodes)))
			}
		}
		for j := range c.Pod.Spec.InitContainers {
			add(c.Pod.Spec.InitContainers[j].Image)
		}
		for j := range c.Pod.Spec.Containers {
			add(c.Pod.Spec.Containers[j].Image)
		}
		most := bigImageEach * containers
		values[i] = 100 * (min(max(sum, smallImage), most) - smallImage) / (most - smallImage)
	}
}}

// normalImage gives a name without a tag the tag it means.
func normalImage(name string) string {
	if strings.LastIndexByte(name, ':') <= strings.LastIndexByte(name, '/') {
		return name + ":latest"
	}
	return name
}
