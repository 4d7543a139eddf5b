package rules

import (
	"fmt"
	"math/rand/v2"
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// motley is a cluster of unlike nodes, some of them cordoned, tainted or nearly full, and many with pods that others mind.
func motley(random *rand.Rand, nodes int) *Table {
	t := NewTable(random.Uint64())
	if random.IntN(2) == 0 {
		t.SetService("default", "s", map[string]string{"pod-template-hash": "5d9c5c5f8"})
	}
	for i := range nodes {
		n := &v1.Node{}
		n.Name = fmt.Sprintf("node-%05d", i)
		n.Labels = map[string]string{v1.LabelHostname: n.Name, v1.LabelTopologyZone: fmt.Sprint("zone-", random.IntN(3))}
		n.Spec.Unschedulable = random.IntN(9) == 0
		if random.IntN(9) == 0 {
			n.Spec.Taints = []v1.Taint{{Key: "k", Effect: []v1.TaintEffect{v1.TaintEffectNoSchedule, v1.TaintEffectPreferNoSchedule}[random.IntN(2)]}}
		}
		n.Status.Allocatable = v1.ResourceList{"cpu": *resource.NewQuantity(1+random.Int64N(3), resource.DecimalSI),
			"memory": *resource.NewQuantity((1+random.Int64N(8))<<30, resource.BinarySI), "pods": resource.MustParse("9")}
		t.SetNode(n)
		for j := range random.IntN(4) {
			p := replica(i*10+j, fmt.Sprint("app", random.IntN(3)), shapes[random.IntN(2)].shape)
			p.Spec.NodeName = n.Name
			t.SetPod(NewPod(p), n.Name)
		}
	}
	return t
}

// A glance comes to what a view comes to where it looks at all nodes; where it does not, it weighs as many that fit as it should.
func TestGlanceAgainstView(t *testing.T) {
	for seed := range uint64(90) {
		random := rand.New(rand.NewPCG(seed, 1))
		nodes := []int{30, 150, 600}[seed%3]
		table := motley(random, nodes)
		whole, part := DefaultProfile(v1.DefaultSchedulerName), DefaultProfile(v1.DefaultSchedulerName)
		whole.Percentage = 100
		for i := range 4 {
			p := NewPod(replica(90000+i, fmt.Sprint("app", random.IntN(4)), func(p *v1.Pod) {
				p.Spec.Containers[0].Resources.Requests["cpu"] = *resource.NewMilliQuantity(100+random.Int64N(1500), resource.DecimalSI)
				if shape := shapes[random.IntN(len(shapes))].shape; shape != nil {
					shape(p)
				}
			}))
			decide := func(profile *Profile) Plan {
				plan, err := Decide(Snapshot{Table: table, Pod: p, Profile: profile})
				if err != nil {
					t.Fatal(err)
				}
				return plan
			}
			glanced, viewed := decide(whole), decide(whole)
			if len(table.views.byKey) == 0 || glanced.String() != viewed.String() || glanced.Score != viewed.Score {
				t.Fatalf("seed %d: at a glance %s, scored %d; by a view %s, scored %d", seed, glanced, glanced.Score, viewed, viewed.Score)
			}
			table.views.clear()
			some := decide(part)
			if want := min(viewed.Feasible, part.enough(table.nodes)); some.Feasible != want {
				t.Fatalf("seed %d: %s: %d nodes were weighed, not %d", seed, some, some.Feasible, want)
			}
			if all := decide(part); all.Node != viewed.Node {
				t.Fatalf("seed %d: the second of its kind: %s, not %s", seed, all, viewed)
			} else if some.Node != "" {
				table.SetPod(p, some.Node)
			}
			table.views.clear()
		}
	}
}
