package rules

import (
	"fmt"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"
)

// spent answers the CPU time of this process: on a machine that others use too, the clock says little.
func spent() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func report(b *testing.B, began time.Duration, took []time.Duration) {
	cpu := (spent() - began).Seconds()
	b.ReportMetric(float64(b.N)/cpu, "pods/cpu-s")
	if len(took) > 0 {
		slices.Sort(took)
		b.ReportMetric(float64(took[len(took)/2].Nanoseconds())/1e3, "p50-us")
		b.ReportMetric(float64(took[len(took)*99/100].Nanoseconds())/1e3, "p99-us")
	}
}

// fleet is a table of like nodes in ten zones.
func fleet(nodes int) *Table {
	t := NewTable(1)
	for i := range nodes {
		n := &v1.Node{}
		n.Name = fmt.Sprintf("node-%05d", i)
		n.Labels = map[string]string{v1.LabelHostname: n.Name, v1.LabelTopologyZone: fmt.Sprint("zone-", i%10), v1.LabelOSStable: "linux"}
		n.Status.Allocatable = v1.ResourceList{"cpu": resource.MustParse("32"), "memory": resource.MustParse("256Gi"), "pods": resource.MustParse("110")}
		t.SetNode(n)
	}
	return t
}

func replica(i int, app string, shape func(p *v1.Pod)) *v1.Pod {
	p := &v1.Pod{}
	p.Namespace, p.Name, p.Labels = "default", fmt.Sprintf("%s-%06d", app, i), map[string]string{"app": app, "pod-template-hash": "5d9c5c5f8"}
	p.UID = types.UID(p.Name)
	p.Spec.SchedulerName = v1.DefaultSchedulerName
	p.Spec.Containers = []v1.Container{{Name: "c", Image: "registry.local/app:1", Resources: v1.ResourceRequirements{Requests: v1.ResourceList{
		"cpu": resource.MustParse("100m"), "memory": resource.MustParse("128Mi")}}}}
	if shape != nil {
		shape(p)
	}
	return p
}

var shapes = []struct {
	name  string
	shape func(p *v1.Pod)
}{
	{"plain", nil},
	{"anti-affinity", func(p *v1.Pod) {
		p.Spec.Affinity = &v1.Affinity{PodAntiAffinity: &v1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []v1.PodAffinityTerm{
			{TopologyKey: v1.LabelHostname, LabelSelector: labelSelector(map[string]string{"app": p.Labels["app"]})}}}}
	}},
	{"zone-affinity", func(p *v1.Pod) {
		p.Spec.Affinity = &v1.Affinity{PodAffinity: &v1.PodAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []v1.PodAffinityTerm{
			{TopologyKey: v1.LabelTopologyZone, LabelSelector: labelSelector(map[string]string{"app": p.Labels["app"]})}}}}
	}},
	{"spread", func(p *v1.Pod) {
		for _, key := range []string{v1.LabelTopologyZone, v1.LabelHostname} {
			p.Spec.TopologySpreadConstraints = append(p.Spec.TopologySpreadConstraints, v1.TopologySpreadConstraint{
				TopologyKey: key, MaxSkew: 1, WhenUnsatisfiable: v1.DoNotSchedule, LabelSelector: labelSelector(map[string]string{"app": p.Labels["app"]})})
		}
	}},
}

// BenchmarkDecide times a decision and its bookkeeping: replicas of several Deployments in turn, each with a Service, so that the
// default spreading by host and zone takes part too.
func BenchmarkDecide(b *testing.B) {
	for _, nodes := range []int{1000, 5000, 20000} {
		for _, s := range shapes {
			b.Run(fmt.Sprintf("%s/nodes=%d", s.name, nodes), func(b *testing.B) {
				t, profile := fleet(nodes), DefaultProfile(v1.DefaultSchedulerName)
				const apps = 20
				for a := range apps {
					t.SetService("default", fmt.Sprint("app", a), map[string]string{"app": fmt.Sprint("app", a)})
				}
				took := make([]time.Duration, 0, 1<<16)
				i, start := 0, spent()
				for b.Loop() {
					app := fmt.Sprint("app", i%apps)
					began := time.Now()
					p := NewPod(replica(i, app, s.shape))
					plan, err := Decide(Snapshot{Table: t, Pod: p, Profile: profile})
					if err != nil || plan.Node == "" {
						b.Fatal(plan, err)
					}
					t.SetPod(p, plan.Node)
					took = append(took, time.Since(began))
					if i++; i >= nodes*15 { // begin anew before the fleet is full
						b.StopTimer()
						cpu := spent()
						for key := range t.pods {
							t.DeletePod(key)
						}
						i = 0
						start += spent() - cpu
						b.StartTimer()
					}
				}
				report(b, start, took)
			})
		}
	}
}

// BenchmarkStrangers times pods of which no two are alike: by their labels, as those of Jobs are, or by what they ask for as well.
func BenchmarkStrangers(b *testing.B) {
	for _, s := range []struct {
		name  string
		shape func(i int) func(p *v1.Pod)
	}{
		{"labels", func(int) func(*v1.Pod) { return nil }},
		{"shapes", func(i int) func(*v1.Pod) {
			return func(p *v1.Pod) {
				p.Spec.Containers[0].Resources.Requests["cpu"] = *resource.NewMilliQuantity(int64(10+i%997), resource.DecimalSI)
				p.Spec.Containers[0].Resources.Requests["memory"] = *resource.NewQuantity(int64(1+i%991)<<20, resource.BinarySI)
			}
		}},
	} {
		b.Run(s.name, func(b *testing.B) {
			t, profile := fleet(5000), DefaultProfile(v1.DefaultSchedulerName)
			i, start := 0, spent()
			took := make([]time.Duration, 0, 1<<16)
			for b.Loop() {
				began := time.Now()
				p := NewPod(replica(i, fmt.Sprint("app", i), s.shape(i)))
				plan, err := Decide(Snapshot{Table: t, Pod: p, Profile: profile})
				if err != nil || plan.Node == "" {
					b.Fatal(plan, err)
				}
				t.SetPod(p, plan.Node)
				took = append(took, time.Since(began))
				i++
			}
			report(b, start, took)
		})
	}
}

// BenchmarkPreempt times finding victims on a full fleet, and deciding once more when they are gone.
func BenchmarkPreempt(b *testing.B) {
	const nodes, perNode = 5000, 8
	t, profile := fleet(nodes), DefaultProfile(v1.DefaultSchedulerName)
	priority := int32(1000)
	fill := func(n, j int) {
		p := replica(n*perNode+j, "low", func(p *v1.Pod) {
			p.Spec.Containers[0].Resources.Requests["cpu"] = resource.MustParse("4")
			p.Spec.NodeName = fmt.Sprintf("node-%05d", n)
		})
		t.SetPod(NewPod(p), p.Spec.NodeName)
	}
	for n := range nodes {
		for j := range perNode {
			fill(n, j)
		}
	}
	took := make([]time.Duration, 0, 1<<16)
	i, start := 0, spent()
	for b.Loop() {
		began := time.Now()
		p := NewPod(replica(i, "high", func(p *v1.Pod) {
			p.Spec.Priority = &priority
			p.Spec.Containers[0].Resources.Requests["cpu"] = resource.MustParse("4")
		}))
		plan, err := Decide(Snapshot{Table: t, Pod: p, Profile: profile})
		if err != nil || len(plan.Victims) != 1 {
			b.Fatal(plan, err)
		}
		t.Nominate(p, plan.Nominated)
		t.DeletePod(plan.Victims[0].Key)
		again, err := Decide(Snapshot{Table: t, Pod: p, Profile: profile})
		if err != nil || again.Node != plan.Nominated {
			b.Fatal(again, err)
		}
		t.SetPod(p, again.Node)
		took = append(took, time.Since(began))
		if i++; i%(nodes*perNode/2) == 0 {
			b.StopTimer()
			for key, p := range t.pods {
				if p.Class.Priority > 0 {
					node := t.rows[p.row].name
					t.DeletePod(key)
					t.SetPod(NewPod(replica(i, "low"+key, func(p *v1.Pod) {
						p.Spec.NodeName = node
						p.Labels = map[string]string{"app": "low", "pod-template-hash": "5d9c5c5f8"}
						p.Spec.Containers[0].Resources.Requests["cpu"] = resource.MustParse("4")
					})), node)
				}
			}
			b.StartTimer()
		}
	}
	report(b, start, took)
}

// BenchmarkMemory says what 5,000 nodes with 150,000 pods of 1,000 Deployments weigh.
func BenchmarkMemory(b *testing.B) {
	for b.Loop() {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		t := fleet(5000)
		for i := range 150000 {
			p := replica(i, fmt.Sprint("app", i%1000), func(p *v1.Pod) { p.Spec.NodeName = fmt.Sprintf("node-%05d", i%5000) })
			t.SetPod(NewPod(p), p.Spec.NodeName)
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapInuse-before.HeapInuse)/1e6, "MB")
		runtime.KeepAlive(t)
	}
}
