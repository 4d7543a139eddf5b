package rules

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"
)

func labelSelector(m map[string]string) *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: m}
}

func drawNode(t *rapid.T, name string) *v1.Node {
	n := &v1.Node{}
	n.Name, n.Labels = name, map[string]string{v1.LabelHostname: name}
	if rapid.IntRange(0, 9).Draw(t, "shared host") == 0 {
		n.Labels[v1.LabelHostname] = "n0" // two nodes that claim one name
	}
	if zone := rapid.SampledFrom([]string{"", "1", "2", "3"}).Draw(t, "zone"); zone != "" {
		n.Labels[v1.LabelTopologyZone] = zone
	}
	if rapid.Bool().Draw(t, "ssd") {
		n.Labels["disk"] = "ssd"
	}
	for _, effect := range []v1.TaintEffect{v1.TaintEffectNoSchedule, v1.TaintEffectPreferNoSchedule} {
		if rapid.IntRange(0, 4).Draw(t, "taint") == 0 {
			n.Spec.Taints = append(n.Spec.Taints, v1.Taint{Key: "k", Value: "v", Effect: effect})
		}
	}
	n.Spec.Unschedulable = rapid.IntRange(0, 9).Draw(t, "cordon") == 0
	n.Status.Allocatable = v1.ResourceList{
		"cpu":    *resource.NewQuantity(rapid.Int64Range(1, 4).Draw(t, "cpus"), resource.DecimalSI),
		"memory": resource.MustParse("8Gi"), "pods": *resource.NewQuantity(rapid.Int64Range(2, 8).Draw(t, "max pods"), resource.DecimalSI),
	}
	if rapid.IntRange(0, 3).Draw(t, "holds an image") == 0 {
		n.Status.Images = []v1.ContainerImage{{Names: []string{"large:latest"}, SizeBytes: rapid.Int64Range(10, 900).Draw(t, "size") << 20}}
	}
	if rapid.Bool().Draw(t, "gpu") {
		n.Status.Allocatable["x.io/gpu"] = resource.MustParse("2")
	}
	return n
}

var (
	keys   = rapid.SampledFrom([]string{v1.LabelHostname, v1.LabelTopologyZone})
	apps   = rapid.SampledFrom([]string{"x", "y"})
	spaces = rapid.SampledFrom([]string{"red", "blue"})
)

func drawTerm(t *rapid.T) v1.PodAffinityTerm {
	x := v1.PodAffinityTerm{TopologyKey: keys.Draw(t, "key"), LabelSelector: labelSelector(map[string]string{"app": apps.Draw(t, "of")})}
	switch rapid.IntRange(0, 3).Draw(t, "namespaces") {
	case 0:
		x.NamespaceSelector = labelSelector(map[string]string{"team": "a"})
	case 1:
		x.Namespaces = []string{"red"}
	case 2:
		x.NamespaceSelector = labelSelector(nil)
	}
	return x
}

func drawTemplate(t *rapid.T) *v1.Pod {
	p := &v1.Pod{}
	p.Namespace, p.Labels = spaces.Draw(t, "namespace"), map[string]string{"app": apps.Draw(t, "app")}
	priority := rapid.Int32Range(0, 2).Draw(t, "priority")
	p.Spec.Priority, p.Spec.SchedulerName = &priority, v1.DefaultSchedulerName
	c := v1.Container{Image: rapid.SampledFrom([]string{"x", "large"}).Draw(t, "image"), Resources: v1.ResourceRequirements{Requests: v1.ResourceList{}}}
	if n := rapid.Int64Range(0, 4).Draw(t, "cpu"); n > 0 {
		c.Resources.Requests["cpu"] = *resource.NewMilliQuantity(n*400, resource.DecimalSI)
	}
	if rapid.Bool().Draw(t, "memory") {
		c.Resources.Requests["memory"] = resource.MustParse("1Gi")
	}
	if rapid.IntRange(0, 5).Draw(t, "wants gpu") == 0 {
		c.Resources.Requests["x.io/gpu"] = resource.MustParse("1")
	}
	if rapid.IntRange(0, 5).Draw(t, "port") == 0 {
		c.Ports = []v1.ContainerPort{{ContainerPort: 80, HostPort: 80, HostIP: rapid.SampledFrom([]string{"", "10.0.0.1", "10.0.0.2"}).Draw(t, "address")}}
	}
	p.Spec.Containers = []v1.Container{c}
	if rapid.IntRange(0, 2).Draw(t, "tolerates") == 0 {
		p.Spec.Tolerations = []v1.Toleration{{Key: "k", Operator: v1.TolerationOpExists}}
	}
	if rapid.IntRange(0, 4).Draw(t, "selects") == 0 {
		p.Spec.NodeSelector = map[string]string{"disk": "ssd"}
	}
	if rapid.IntRange(0, 4).Draw(t, "claims") == 0 {
		p.Spec.Volumes = []v1.Volume{uses(fmt.Sprint("c", rapid.IntRange(0, 1).Draw(t, "claim")))}
	}
	if rapid.IntRange(0, 4).Draw(t, "wants a disk") == 0 {
		p.Annotations = map[string]string{localDisk: ""}
	}
	a := &v1.Affinity{PodAffinity: &v1.PodAffinity{}, PodAntiAffinity: &v1.PodAntiAffinity{}, NodeAffinity: &v1.NodeAffinity{}}
	p.Spec.Affinity = a
	if rapid.IntRange(0, 2).Draw(t, "minds nobody") == 0 {
		return p
	}
	one := func(name string) bool { return rapid.IntRange(0, 3).Draw(t, name) == 0 }
	for one("together") {
		a.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution = append(a.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution, drawTerm(t))
	}
	for one("apart") {
		a.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution = append(a.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution, drawTerm(t))
	}
	if one("like") {
		a.PodAffinity.PreferredDuringSchedulingIgnoredDuringExecution = []v1.WeightedPodAffinityTerm{{Weight: 30, PodAffinityTerm: drawTerm(t)}}
	}
	if one("dislike") {
		a.PodAntiAffinity.PreferredDuringSchedulingIgnoredDuringExecution = []v1.WeightedPodAffinityTerm{{Weight: 50, PodAffinityTerm: drawTerm(t)}}
	}
	if one("prefers ssd") {
		a.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution = []v1.PreferredSchedulingTerm{{Weight: 7, Preference: v1.NodeSelectorTerm{
			MatchExpressions: []v1.NodeSelectorRequirement{{Key: "disk", Operator: v1.NodeSelectorOpExists}}}}}
	}
	for one("spread") {
		x := v1.TopologySpreadConstraint{
			TopologyKey: keys.Draw(t, "spread key"), MaxSkew: rapid.Int32Range(1, 2).Draw(t, "skew"), LabelSelector: labelSelector(map[string]string{"app": apps.Draw(t, "spread of")}),
			WhenUnsatisfiable: rapid.SampledFrom([]v1.UnsatisfiableConstraintAction{v1.DoNotSchedule, v1.ScheduleAnyway}).Draw(t, "when"),
		}
		policies := rapid.SampledFrom([]*v1.NodeInclusionPolicy{nil, new(v1.NodeInclusionPolicyHonor), new(v1.NodeInclusionPolicyIgnore)})
		x.NodeAffinityPolicy, x.NodeTaintsPolicy = policies.Draw(t, "affinity policy"), policies.Draw(t, "taints policy")
		if x.WhenUnsatisfiable == v1.DoNotSchedule && rapid.Bool().Draw(t, "with domains") {
			x.MinDomains = new(rapid.Int32Range(1, 3).Draw(t, "domains"))
		}
		p.Spec.TopologySpreadConstraints = append(p.Spec.TopologySpreadConstraints, x)
	}
	return p
}

// Whatever happens to a cluster, one decision after another is what looking at every node and every pod gives: the node is one with
// the highest score, the words are the same, the victims are the same; and a decision changes nothing.
func TestDecideAgainstBruteForce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		table, profile := NewTable(3), DefaultProfile(v1.DefaultSchedulerName)
		m := &model{nodes: map[string]*v1.Node{}, pods: map[string]*v1.Pod{}, nominated: map[string]*v1.Pod{},
			budgets: map[string]*policyv1.PodDisruptionBudget{}, namespaces: map[string]labels.Set{"red": {"team": "a"}, "blue": {"team": "b"}}}
		for ns, l := range m.namespaces {
			table.SetNamespace(ns, l)
		}
		if rapid.Bool().Draw(t, "service") {
			m.service = map[string]string{"app": "x"}
			for ns := range m.namespaces {
				table.SetService(ns, "s", m.service)
			}
		}
		templates := rapid.SliceOfN(rapid.Custom(drawTemplate), 1, 4).Draw(t, "templates")
		for _, p := range templates { // of the same shape, and yet others may mean one and not the other
			if rapid.Bool().Draw(t, "a sister") {
				sister := p.DeepCopy()
				sister.Namespace, sister.Labels = spaces.Draw(t, "her namespace"), map[string]string{"app": apps.Draw(t, "her app")}
				templates = append(templates, sister)
			}
		}
		nodes := rapid.IntRange(1, 7).Draw(t, "nodes")
		m.disks = drawDisks(t, table, nodes)
		for range rapid.IntRange(0, 2).Draw(t, "budgets") {
			drawBudget(t, table, m)
		}
		setNode := func(i int) {
			n := drawNode(t, fmt.Sprint("n", i))
			m.nodes[n.Name] = n
			table.SetNode(n)
		}
		for i := range nodes {
			setNode(i)
		}
		for step := range rapid.IntRange(1, 25).Draw(t, "steps") {
			switch action := rapid.IntRange(0, 13).Draw(t, "action"); {
			case action == 0:
				setNode(rapid.IntRange(0, nodes-1).Draw(t, "node"))
			case action == 1 && len(m.nodes) > 1:
				name := rapid.SampledFrom(m.names()).Draw(t, "lost node")
				delete(m.nodes, name)
				table.DeleteNode(name)
			case action == 2 && len(m.pods) > 0:
				name := rapid.SampledFrom(slices.Sorted(maps.Keys(m.pods))).Draw(t, "gone")
				table.DeletePod(m.pods[name].Namespace + "/" + name)
				delete(m.pods, name)
			case action == 3 && len(m.pods) > 0:
				name := rapid.SampledFrom(slices.Sorted(maps.Keys(m.pods))).Draw(t, "leaving")
				p := m.pods[name].DeepCopy()
				p.DeletionTimestamp = &metav1.Time{}
				m.pods[name] = p
				table.SetPod(NewPod(p), p.Spec.NodeName)
			case action == 4:
				ns := spaces.Draw(t, "relabelled")
				m.namespaces[ns] = labels.Set{"team": rapid.SampledFrom([]string{"a", "b"}).Draw(t, "team")}
				table.SetNamespace(ns, m.namespaces[ns])
			case action == 5:
				drawBudget(t, table, m)
			default:
				p := rapid.SampledFrom(templates).Draw(t, "template").DeepCopy()
				p.Name = fmt.Sprint("p", step)
				p.UID = types.UID(p.Name)
				if len(m.disks.volumes) == 0 {
					p.Spec.Volumes = nil
				} else if p.Annotations != nil {
					m.disks.claim(table, p, rapid.Int64Range(1, 3).Draw(t, "disk"))
				}
				decideBoth(t, table, profile, m, p)
			}
		}
	})
}

func decideBoth(t *rapid.T, table *Table, profile *Profile, m *model, raw *v1.Pod) {
	p := NewPod(raw)
	plan, err := Decide(Snapshot{Table: table, Pod: p, Profile: profile})
	if err != nil {
		t.Fatal(err)
	}
	again, _ := Decide(Snapshot{Table: table, Pod: p, Profile: profile})
	if plan.String() != again.String() {
		t.Fatalf("first %s, then %s", plan, again)
	}
	best, words, helpful := m.decide(raw)
	if len(best) > 0 {
		if !slices.Contains(best, plan.Node) {
			t.Fatalf("%s; brute force says one of %v", plan, best)
		}
		placeBoth(t, table, m, raw, p, plan)
		return
	}
	if len(m.nodes) > 0 && !strings.HasPrefix(plan.Message, words) {
		t.Fatalf("%s; brute force says %s", plan, words)
	}
	var want candidate
	for _, n := range helpful {
		if pods, broken := m.victims(raw, n); pods != nil {
			c := candidate{row: table.byName[n.Name], violations: broken}
			for _, q := range pods {
				c.victims = append(c.victims, NewPod(q))
			}
			if want.victims == nil || table.cheaper(c, want) < 0 {
				want = c
			}
		}
	}
	names := func(pods []*Pod) (out string) {
		for _, q := range pods {
			out += " " + q.Key
		}
		return out
	}
	if got, want := names(plan.Victims), names(want.victims); got != want {
		t.Fatalf("%s; brute force evicts%s", plan, want)
	}
	if plan.Nominated == "" {
		return
	}
	if n := table.rows[want.row].name; plan.Nominated != n {
		t.Fatalf("%s; brute force nominates %s", plan, n)
	}
	raw.Status.NominatedNodeName = plan.Nominated
	m.nominated[raw.Name] = raw
	table.Nominate(p, plan.Nominated)
	if rapid.Bool().Draw(t, "victims go") {
		for _, v := range plan.Victims {
			table.DeletePod(v.Key)
			delete(m.pods, v.Name())
		}
		plan, _ := Decide(Snapshot{Table: table, Pod: p, Profile: profile})
		if plan.Node != raw.Status.NominatedNodeName {
			t.Fatalf("room was made on %s, and yet %s", raw.Status.NominatedNodeName, plan)
		}
		delete(m.nominated, raw.Name)
		placeBoth(t, table, m, raw, p, plan)
	}
}

// placeBoth puts a pod where it was decided to go. Of the disks that would do it took the smallest.
func placeBoth(t *rapid.T, table *Table, m *model, raw *v1.Pod, p *Pod, plan Plan) {
	for _, c := range m.disks.of(raw) {
		if c.Spec.VolumeName != "" {
			continue
		}
		want := m.disks.local(c, m.nodes[plan.Node])
		size := want.Spec.Capacity[v1.ResourceStorage]
		if len(plan.Volumes) != 1 || size.Cmp(m.disks.volumes[plan.Volumes[0].Volume].Spec.Capacity[v1.ResourceStorage]) != 0 {
			t.Fatalf("%s; brute force takes %s or one as large", plan, want.Name)
		}
		m.disks.taken[plan.Volumes[0].Volume] = true
	}
	raw.Spec.NodeName = plan.Node
	m.pods[raw.Name] = raw
	table.SetPod(p, plan.Node)
	table.Storage.Reserve(plan.Volumes)
}
