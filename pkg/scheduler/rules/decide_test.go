package rules

import (
	"fmt"
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/labels"
	"pgregory.net/rapid"
)

func node(name, cpu string) *v1.Node {
	n := &v1.Node{}
	n.Name, n.Labels = name, map[string]string{v1.LabelHostname: name}
	n.Status.Allocatable = v1.ResourceList{"cpu": resource.MustParse(cpu), "memory": resource.MustParse("8Gi"), "pods": resource.MustParse("110")}
	return n
}

func pod(name string, cpu int64, l map[string]string) *v1.Pod {
	p := &v1.Pod{}
	p.Namespace, p.Name, p.Labels = "default", name, l
	p.Spec.Containers = []v1.Container{{Image: "x", Resources: v1.ResourceRequirements{Requests: v1.ResourceList{"cpu": *resource.NewMilliQuantity(cpu, resource.DecimalSI)}}}}
	return p
}

func TestImageLocality(t *testing.T) {
	table := NewTable()
	for i, name := range []string{"a", "b", "c"} {
		n := node(name, "4")
		if i == 1 {
			n.Status.Images = []v1.ContainerImage{{Names: []string{"big:1"}, SizeBytes: 900 << 20}}
		}
		table.SetNode(n)
	}
	p := pod("p", 100, nil)
	p.Spec.Containers[0].Image = "big:1"
	for seed := range uint64(10) {
		if plan := Decide(Snapshot{Table: table, Pod: NewPod(p), Seed: seed}); plan.Node != "b" {
			t.Errorf("seed %d: %s; the node with the image is b", seed, plan)
		}
	}
}

func TestReplicasOfOneServiceSpread(t *testing.T) {
	table := NewTable()
	table.SetNode(node("a", "4"))
	table.SetNode(node("b", "4"))
	web := map[string]string{"app": "web"}
	siblings := labels.SelectorFromSet(web)
	count := map[string]int{}
	for i := range 6 {
		p := NewPod(pod(fmt.Sprint("web-", i), 0, web))
		plan := Decide(Snapshot{Table: table, Pod: p, Siblings: siblings})
		table.SetPod(p, plan.Node)
		count[plan.Node]++
	}
	if count["a"] != 3 || count["b"] != 3 {
		t.Errorf("spread %v; want 3 and 3", count)
	}
}

// A node is never given more than it has, a decision is the same every time, and it leaves the table as it was.
func TestNeverOvercommits(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		table := NewTable()
		nodes := rapid.IntRange(1, 6).Draw(t, "nodes")
		for i := range nodes {
			table.SetNode(node(fmt.Sprint("n", i), "2"))
		}
		for i := range rapid.IntRange(1, 30).Draw(t, "pods") {
			raw := pod(fmt.Sprint("p", i), rapid.Int64Range(0, 1500).Draw(t, "cpu"), map[string]string{"app": rapid.SampledFrom([]string{"x", "y"}).Draw(t, "app")})
			priority := rapid.Int32Range(0, 3).Draw(t, "priority")
			raw.Spec.Priority = &priority
			p := NewPod(raw)
			s := Snapshot{Table: table, Pod: p, Seed: 7}
			plan, again := Decide(s), Decide(s)
			if plan.String() != again.String() {
				t.Fatalf("first %s, then %s", plan, again)
			}
			if plan.Node != "" {
				table.SetPod(p, plan.Node)
			}
			for _, v := range plan.Victims {
				if v.Priority >= p.Priority {
					t.Fatalf("%s would evict %s of priority %d", p.Key, v.Key, v.Priority)
				}
				table.DeletePod(v.Key)
			}
			for _, n := range table.nodes {
				sum := int64(0)
				for _, q := range n.Pods {
					sum += q.Request.CPU
				}
				if sum != n.Used.CPU || sum > n.Capacity.CPU {
					t.Fatalf("%s: pods ask %d, the row says %d of %d", n.Name, sum, n.Used.CPU, n.Capacity.CPU)
				}
			}
		}
	})
}

func BenchmarkDecide1000Nodes(b *testing.B) {
	table := NewTable()
	for i := range 1000 {
		table.SetNode(node(fmt.Sprint("n", i), "64"))
	}
	i := 0
	for b.Loop() {
		i++
		p := NewPod(pod(fmt.Sprint("p", i), 10, nil))
		plan := Decide(Snapshot{Table: table, Pod: p, Start: i, Enough: 420})
		table.SetPod(p, plan.Node)
	}
}
