package eviction

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

func parse(t *testing.T, hard, soft, grace, reclaim map[string]string) []Threshold {
	t.Helper()
	out, err := Parse(hard, soft, grace, reclaim)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestParse(t *testing.T) {
	got := parse(t, map[string]string{"nodefs.available": "10%", "memory.available": "100Mi", "pid.available": "0%"}, map[string]string{"memory.available": "200Mi"}, map[string]string{"memory.available": "1m"}, map[string]string{"memory.available": "10Mi"})
	text := ""
	for _, x := range got {
		text += fmt.Sprintf("%s<%d hard=%t grace=%s reclaim=%d\n", x.Signal, x.of(1000), x.Hard, x.Grace, x.Reclaim)
	}
	if want := "memory.available<104857600 hard=true grace=0s reclaim=10485760\nmemory.available<209715200 hard=false grace=1m0s reclaim=10485760\nnodefs.available<100 hard=true grace=0s reclaim=0\n"; text != want {
		t.Error(text)
	}
	for _, bad := range []map[string]string{{"luck.available": "1"}, {"memory.available": "x%"}, {"memory.available": "-1"}, {"memory.available": "101%"}} {
		if _, err := Parse(bad, nil, nil, nil); err == nil {
			t.Error("taken:", bad)
		}
	}
	if _, err := Parse(nil, map[string]string{"memory.available": "1Mi"}, nil, nil); err == nil {
		t.Error("a soft threshold without a grace was taken")
	}
}

// pod has a priority, a memory request in Mi and a memory use in Mi.
func pod(name string, priority int32, request, use int64) (*v1.Pod, stats.PodStats) {
	p := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name)}, Spec: v1.PodSpec{Priority: &priority, Containers: []v1.Container{{Name: "c"}}}}
	if request > 0 {
		p.Spec.Containers[0].Resources.Requests = v1.ResourceList{v1.ResourceMemory: *resource.NewQuantity(request<<20, resource.BinarySI)}
	}
	n := uint64(use << 20)
	return p, stats.PodStats{PodRef: stats.PodReference{UID: name}, Memory: &stats.MemoryStats{WorkingSetBytes: &n}, Containers: []stats.ContainerStats{{Name: "c", Memory: &stats.MemoryStats{WorkingSetBytes: &n}}}}
}

func TestRank(t *testing.T) {
	var pods []*v1.Pod
	sum := &stats.Summary{}
	for _, x := range []struct {
		name         string
		priority     int32
		request, use int64
	}{{"within", 0, 500, 400}, {"important", 100, 10, 900}, {"little", 0, 10, 20}, {"much", 0, 10, 300}, {"node", 2000000000, 0, 900}, {"best", 0, 0, 100}} {
		p, s := pod(x.name, x.priority, x.request, x.use)
		pods, sum.Pods = append(pods, p), append(sum.Pods, s)
	}
	var got []string
	for _, u := range rank(MemoryAvailable, candidates(pods, sum)) {
		got = append(got, u.Pod.Name)
	}
	if s := strings.Join(got, " "); s != "much best little important within" {
		t.Error(s)
	}
}

// world is a node whose memory is what its pods leave.
type world struct {
	total   int64
	pods    []*v1.Pod
	sum     *stats.Summary
	evicted []string
	changes int
}

func (w *world) manager(th []Threshold) *Manager {
	return New(Config{Thresholds: th, Transition: time.Minute, MaxGrace: 5, Log: slog.New(slog.DiscardHandler),
		Observe: func(context.Context) map[Signal]Observation {
			left := w.total
			for _, p := range w.sum.Pods {
				left -= int64(*p.Memory.WorkingSetBytes)
			}
			return map[Signal]Observation{MemoryAvailable: {left, w.total}}
		},
		Measure: func(context.Context) (*stats.Summary, error) { return w.sum, nil },
		Folder:  func(*v1.Pod, string) int64 { return 0 },
		Pods:    func() []*v1.Pod { return w.pods }, Reclaim: func(context.Context) {}, Changed: func() { w.changes++ },
		Evict: func(p *v1.Pod, _, message string, grace int64) {
			w.evicted = append(w.evicted, fmt.Sprintf("%s %d %s", p.Name, grace, message))
			for i := range w.pods {
				if w.pods[i] == p {
					w.pods = append(w.pods[:i:i], w.pods[i+1:]...)
					w.sum.Pods = append(w.sum.Pods[:i:i], w.sum.Pods[i+1:]...)
					return
				}
			}
		}})
}

func TestEvictsUntilThereIsEnough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{total: 1000 << 20, sum: &stats.Summary{}}
		for _, x := range []struct{ name string }{{"a"}, {"b"}, {"c"}} {
			p, s := pod(x.name, 0, 0, 320)
			w.pods, w.sum.Pods = append(w.pods, p), append(w.sum.Pods, s)
		}
		m := w.manager(parse(t, map[string]string{"memory.available": "100Mi"}, nil, nil, map[string]string{"memory.available": "300Mi"}))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); m.Run(ctx) }()
		time.Sleep(time.Second)
		if len(w.evicted) != 1 || w.evicted[0] != "a 0 The node was low on resource: memory. Threshold quantity: 100Mi, available: 40Mi. Container c was using 327680Ki, request is 0, has larger consumption of memory. " {
			t.Errorf("%q", w.evicted)
		}
		// 360Mi are free now: more than the threshold, and less than that with what is to be reclaimed besides.
		time.Sleep(20 * time.Second)
		if len(w.evicted) != 2 || !m.Under(v1.NodeMemoryPressure) {
			t.Errorf("%q %t", w.evicted, m.Under(v1.NodeMemoryPressure))
		}
		time.Sleep(90 * time.Second)
		if len(w.evicted) != 2 || m.Under(v1.NodeMemoryPressure) || w.changes != 2 {
			t.Errorf("%q %t %d", w.evicted, m.Under(v1.NodeMemoryPressure), w.changes)
		}
		cancel()
		<-done
	})
}

func TestSoftThresholdsArePatient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{total: 1000 << 20, sum: &stats.Summary{}}
		p, s := pod("a", 0, 0, 950)
		w.pods, w.sum.Pods = []*v1.Pod{p}, []stats.PodStats{s}
		m := w.manager(parse(t, nil, map[string]string{"memory.available": "10%"}, map[string]string{"memory.available": "30s"}, nil))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); m.Run(ctx) }()
		time.Sleep(25 * time.Second)
		if len(w.evicted) != 0 || m.Under(v1.NodeMemoryPressure) {
			t.Error("evicted before the grace was over")
		}
		time.Sleep(10 * time.Second)
		if len(w.evicted) != 1 || !strings.HasPrefix(w.evicted[0], "a 5 ") {
			t.Error(w.evicted)
		}
		cancel()
		<-done
	})
}

func TestOverLimit(t *testing.T) {
	p := &v1.Pod{Spec: v1.PodSpec{Containers: []v1.Container{{Name: "a", Resources: v1.ResourceRequirements{Limits: v1.ResourceList{v1.ResourceEphemeralStorage: resource.MustParse("1Mi")}}},
		{Name: "b", Resources: v1.ResourceRequirements{Limits: v1.ResourceList{v1.ResourceEphemeralStorage: resource.MustParse("2Mi")}}}}}}
	for want, u := range map[string]Used{
		"": {Pod: p, Disk: 2 << 20, Containers: map[string]ContainerUsed{"a": {Disk: 1 << 20}}},
		`Container a exceeded its local ephemeral storage limit "1Mi". `:                {Pod: p, Containers: map[string]ContainerUsed{"a": {Disk: 2 << 20}}},
		`Pod ephemeral local storage usage exceeds the total limit of containers 3Mi. `: {Pod: p, Disk: 4 << 20},
	} {
		if got := overLimit(u); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
