package rules

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"unsafe"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// A plugin that panics half way through an eviction loses nobody.
func TestAPanicLosesNobody(t *testing.T) {
	table := fleet(3)
	for i := range 24 {
		p := replica(i, "low", func(p *v1.Pod) {
			p.Spec.NodeName = fmt.Sprintf("node-%05d", i%3)
			p.Spec.Containers[0].Resources.Requests["cpu"] = resource.MustParse("4")
		})
		table.SetPod(NewPod(p), p.Spec.NodeName)
	}
	profile, priority := DefaultProfile(v1.DefaultSchedulerName), int32(10)
	calls := 0
	profile.plugins = append(profile.plugins, &Plugin{Name: "Bad", Points: []Point{Filter}, Prepare: func(v *View) Part {
		return Part{Check: func(int32) *Verdict {
			if calls++; table.thinking {
				panic("bad")
			}
			return nil
		}}
	}})
	high := NewPod(replica(0, "high", func(p *v1.Pod) {
		p.Spec.Priority = &priority
		p.Spec.Containers[0].Resources.Requests["cpu"] = resource.MustParse("4")
	}))
	func() {
		defer func() {
			if recover() == nil {
				t.Error("nothing panicked")
			}
			table.Forget()
		}()
		_, _ = Decide(Snapshot{Table: table, Pod: high, Profile: profile})
	}()
	for r := range table.rows {
		if used := table.rows[r].base[cpu].used; used != 32000 || len(table.rows[r].pods) != 8 {
			t.Errorf("%s: %d used by %d pods; want 32000 by 8", table.rows[r].name, used, len(table.rows[r].pods))
		}
	}
	plan, err := Decide(Snapshot{Table: table, Pod: high, Profile: DefaultProfile(v1.DefaultSchedulerName)})
	if err != nil || len(plan.Victims) != 1 {
		t.Errorf("afterwards: %s, %v", plan, err)
	}
}

// TestPromisedPodsKeepOthersAway: a pod for which room is made wants to be alone, and what was worked out is forgotten meanwhile.
// Who comes then is kept away at once.
func TestPromisedPodsKeepOthersAway(t *testing.T) {
	table, profile := NewTable(1), DefaultProfile(v1.DefaultSchedulerName)
	n := &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n", Labels: map[string]string{v1.LabelHostname: "n"}}}
	n.Status.Allocatable = v1.ResourceList{"pods": resource.MustParse("9")}
	table.SetNode(n)
	table.SetNamespace("a", map[string]string{"team": "x"})
	pod := func(name string) *v1.Pod {
		return &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: name, UID: types.UID(name), Labels: map[string]string{"app": "x"}}, Spec: v1.PodSpec{SchedulerName: v1.DefaultSchedulerName}}
	}
	standing := NewPod(pod("standing"))
	table.SetPod(standing, "n")
	alone := pod("alone")
	alone.Spec.Affinity = &v1.Affinity{PodAntiAffinity: &v1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []v1.PodAffinityTerm{
		{LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "x"}}, TopologyKey: v1.LabelHostname},
	}}}
	first := NewPod(alone)
	for range 2 { // a view is made for who comes again
		if plan, err := Decide(Snapshot{Table: table, Pod: first, Profile: profile}); err != nil || plan.Node != "" {
			t.Fatalf("%s, %v", plan, err)
		}
	}
	table.Nominate(first, "n")
	table.DeletePod(standing.Key)
	table.SetNamespace("a", map[string]string{"team": "y"})
	late := NewPod(pod("late"))
	for range 2 {
		plan, err := Decide(Snapshot{Table: table, Pod: late, Profile: profile})
		if err != nil || plan.Node != "" || !strings.Contains(plan.Message, "1 node(s) didn't satisfy existing pods anti-affinity rules") {
			t.Fatalf("%s, %v", plan, err)
		}
	}
	table.Unnominate("a/alone")
	if plan, err := Decide(Snapshot{Table: table, Pod: late, Profile: profile}); err != nil || plan.Node != "n" {
		t.Fatalf("the room was given up: %s, %v", plan, err)
	}
	if len(table.carriers.all) != 0 {
		t.Errorf("left behind: %v", table.carriers.all)
	}
}

// The same seed decides the same, whatever order the cluster was learnt in; another seed breaks ties otherwise.
func TestSeed(t *testing.T) {
	place := func(seed uint64, backwards bool) (out []string) {
		table, profile := NewTable(seed), DefaultProfile(v1.DefaultSchedulerName)
		names := []string{"a", "b", "c", "d", "e", "f"}
		if backwards {
			slices.Reverse(names)
		}
		for _, name := range names {
			n := &v1.Node{}
			n.Name = name
			n.Status.Allocatable = v1.ResourceList{"cpu": resource.MustParse("4"), "memory": resource.MustParse("8Gi"), "pods": resource.MustParse("10")}
			table.SetNode(n)
		}
		for i := range 12 {
			p := NewPod(replica(i, "x", nil))
			plan, err := Decide(Snapshot{Table: table, Pod: p, Profile: profile})
			if err != nil {
				t.Fatal(err)
			}
			table.SetPod(p, plan.Node)
			out = append(out, plan.Node)
		}
		return out
	}
	if a, b := place(1, false), place(1, true); !slices.Equal(a, b) {
		t.Errorf("one seed, and yet %v and %v", a, b)
	}
	if a, b := place(1, false), place(2, false); slices.Equal(a, b) {
		t.Errorf("two seeds, and yet both %v", a)
	}
}

// TestArrange: rows that are numbered anew keep what stands on them, and who is to stand there; rows of lost nodes go.
func TestArrange(t *testing.T) {
	table := fleet(40)
	for i := range 120 {
		p := replica(i, "x", func(p *v1.Pod) { p.Spec.NodeName = fmt.Sprintf("node-%05d", i%60) }) // of some the node is not seen yet
		table.SetPod(NewPod(p), p.Spec.NodeName)
	}
	table.Nominate(NewPod(replica(120, "x", nil)), "node-00007")
	table.DeletePod("default/x-000009")
	table.DeletePod("default/x-000069")
	table.DeleteNode("node-00009")
	table.arrange()
	if len(table.rows) != 59 || len(table.byName) != 59 || len(table.free) != 0 {
		t.Fatalf("%d rows, %d names, %d free; want 59, 59, 0", len(table.rows), len(table.byName), len(table.free))
	}
	for r := range table.rows {
		n := &table.rows[r]
		if table.byName[n.name] != int32(r) || r > 0 && table.rows[r-1].rank > n.rank {
			t.Errorf("row %d is %s, known as row %d, of rank %d after rank %d", r, n.name, table.byName[n.name], n.rank, table.rows[max(r-1, 0)].rank)
		}
		if len(n.pods) != 2 || n.base[cpu].used != 200 {
			t.Errorf("%s: %d pods use %dm, want 2 and 200m", n.name, len(n.pods), n.base[cpu].used)
		}
		for _, p := range n.pods {
			if _, node := table.Pod(p.Key); node != n.name {
				t.Errorf("%s stands on %s, want %s", p.Key, node, n.name)
			}
		}
	}
	if node := table.Unnominate("default/x-000120"); node != "node-00007" {
		t.Errorf("nominated to %q, want node-00007", node)
	}
}

// TestShareImages: a name of an image is held once for all nodes, and known as long as one of them holds it.
func TestShareImages(t *testing.T) {
	table := NewTable(1)
	set := func(node string, images ...string) *v1.Node {
		n := &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: node}}
		for _, name := range images {
			n.Status.Images = append(n.Status.Images, v1.ContainerImage{Names: []string{strings.Clone(name)}, SizeBytes: 1})
		}
		table.ShareImages(n)
		table.SetNode(n)
		return n
	}
	name := func(n *v1.Node, i int) *byte { return unsafe.StringData(n.Status.Images[i].Names[0]) }
	a, b := set("a", "x:1", "y"), set("b", "x:1", "z:1")
	if name(a, 0) != name(b, 0) {
		t.Error("two nodes hold a name of their own each")
	}
	set("a", "z:1")
	table.DeleteNode("a")
	held := map[string]int{}
	for name, i := range table.images {
		if i.name != name {
			t.Errorf("%s is known as %s", name, i.name)
		}
		held[name] = i.nodes
	}
	if want := map[string]int{"x:1": 1, "z:1": 1}; !maps.Equal(held, want) {
		t.Errorf("nodes by image: %v, want %v", held, want)
	}
}

// An event wakes a pod only if it can help.
func TestHelps(t *testing.T) {
	table, profile := fleet(2), DefaultProfile(v1.DefaultSchedulerName)
	large := func(p *v1.Pod) { p.Spec.Containers[0].Resources.Requests["cpu"] = resource.MustParse("20") }
	stand := func(i int, node string, shape func(p *v1.Pod)) *Pod {
		p := NewPod(replica(i, "x", func(p *v1.Pod) { shape(p); p.Spec.NodeName = node }))
		table.SetPod(p, node)
		return p
	}
	first := stand(0, "node-00000", large)
	stand(1, "node-00001", large)
	small := stand(2, "node-00001", func(*v1.Pod) {})
	p := NewPod(replica(3, "x", large))
	plan, err := Decide(Snapshot{Table: table, Pod: p, Profile: profile})
	if err != nil || plan.Node != "" || !slices.Equal(plan.Rejectors, []string{"NodeResourcesFit"}) {
		t.Fatal(plan, plan.Rejectors, err)
	}
	check := func(what string, want bool, e Event) {
		t.Helper()
		if got := table.Helps(p, profile, plan.Rejectors, e); got != want {
			t.Errorf("%s helps: %v, want %v", what, got, want)
		}
	}
	table.DeletePod(small.Key)
	check("a small pod's end", false, Event{Kind: PodGone, Node: "node-00001", Pod: small})
	check("a pod placed", false, Event{Kind: PodPlaced, Node: "node-00001", Pod: small})
	check("a volume", false, Event{Kind: StorageChanged})
	table.DeletePod(first.Key)
	check("a large pod's end", true, Event{Kind: PodGone, Node: "node-00000", Pod: first})
	table.SetPod(first, "node-00000")
	tiny := &v1.Node{}
	tiny.Name = "tiny"
	tiny.Status.Allocatable = v1.ResourceList{"cpu": resource.MustParse("1"), "memory": resource.MustParse("1Gi"), "pods": resource.MustParse("10")}
	table.SetNode(tiny)
	check("a tiny node", false, Event{Kind: NodeAdded, Node: "tiny"})
	tiny = tiny.DeepCopy()
	tiny.Status.Allocatable["cpu"] = resource.MustParse("32")
	table.SetNode(tiny)
	check("a node that grew", true, Event{Kind: NodeChanged, Node: "tiny"})
}
