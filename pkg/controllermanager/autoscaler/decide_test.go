package autoscaler

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sextant-k8s/sextant/pkg/controllermanager/golden"
)

var conf = Config{Period: 15 * time.Second, Window: 5 * time.Minute, Tolerance: 0.1, CPUStart: 5 * time.Minute, Delay: 30 * time.Second}

// TestDecide plays scripts: "want 10" is a metric that asks for ten, "fail" one that says nothing, "wait" lets time pass.
func TestDecide(t *testing.T) {
	golden.Run(t, func(t *testing.T, files map[string]string) string {
		if files["loads.yaml"] != "" {
			return loads(t, files["loads.yaml"])
		}
		h := golden.Object[autoscalingv2.HorizontalPodAutoscaler](t, files["hpa.yaml"])
		s := Snapshot{HPA: h, Config: conf, Now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
		var b strings.Builder
		for line := range strings.Lines(files["script"]) {
			fmt.Fprintf(&b, "> %s", line)
			words := strings.Fields(line)
			switch words[0] {
			case "current":
				if _, err := fmt.Sscan(words[1], &s.Current); err != nil {
					t.Fatal(err)
				}
				continue
			case "wait":
				d, err := time.ParseDuration(words[1])
				if err != nil {
					t.Fatal(err)
				}
				s.Now = s.Now.Add(d)
				continue
			}
			s.Proposals = nil
			for _, w := range words {
				n := int32(0)
				if _, err := fmt.Sscan(w, &n); err == nil {
					s.Proposals = append(s.Proposals, Proposal{Replicas: n, Name: "metric " + w})
				} else if w == "fail" {
					s.Proposals = append(s.Proposals, Proposal{Reason: "FailedGetResourceMetric", What: "cpu resource metric value", Err: errors.New("nobody serves it")})
				}
			}
			p := decide(s)
			b.WriteString(p.String())
			s.Memory = p.Memory
			if p.Status != nil {
				h.Status = *p.Status
			}
			if p.Scale >= 0 {
				s.Current = p.Scale
			}
		}
		return b.String()
	})
}

// load is how an archive writes what a metric says.
type load struct {
	Case        string   `json:"case"`
	Current     int32    `json:"current"`
	Utilization *int32   `json:"utilization"` // the goal: percent of what pods ask for,
	Average     int64    `json:"average"`     // or thousandths for each pod,
	Value       int64    `json:"value"`       // or thousandths of something else,
	Share       int64    `json:"share"`       // or of it for each pod
	Tolerance   *float64 `json:"tolerance"`
	Container   string   `json:"container"`
	Is          int64    `json:"is"` // thousandths of something else
	Pods        []struct {
		Uses  *int64           `json:"uses"` // thousandths; nothing is known without
		Asks  map[string]int64 `json:"asks"` // by container
		Phase corev1.PodPhase  `json:"phase"`
		Ready bool             `json:"ready"`
		Age   string           `json:"age"`
	} `json:"pods"`
}

// loads answers what each load asks for.
func loads(t *testing.T, text string) string {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var b strings.Builder
	for _, x := range golden.Objects[load](t, text) {
		g := Goal{Utilization: x.Utilization, Milli: x.Average, Container: x.Container, Resource: corev1.ResourceCPU, Above: conf.Tolerance, Below: conf.Tolerance}
		if x.Tolerance != nil {
			g.Above, g.Below = *x.Tolerance, *x.Tolerance
		}
		fmt.Fprintf(&b, "%s: ", x.Case)
		l := Load{Current: x.Current, Samples: map[string]Sample{}, Now: now, Config: conf}
		ready := int32(0)
		for i, p := range x.Pods {
			age, err := time.ParseDuration(p.Age)
			if err != nil {
				t.Fatal(err)
			}
			pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("p", i)}, Status: corev1.PodStatus{Phase: p.Phase, StartTime: &metav1.Time{Time: now.Add(-age)}}}
			status := corev1.ConditionFalse
			if p.Ready {
				status = corev1.ConditionTrue
				ready++
			}
			pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: status, LastTransitionTime: *pod.Status.StartTime}}
			for name, milli := range p.Asks {
				c := corev1.Container{Name: name}
				if milli > 0 {
					c.Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: *resource.NewMilliQuantity(milli, resource.DecimalSI)}
				}
				pod.Spec.Containers = append(pod.Spec.Containers, c)
			}
			l.Pods = append(l.Pods, pod)
			if p.Uses != nil {
				l.Samples[pod.Name] = Sample{Milli: *p.Uses, At: now, Window: time.Minute}
			}
		}
		switch {
		case x.Value > 0:
			g.Milli = x.Value
			fmt.Fprintf(&b, "%d replicas\n", byValue(x.Is, g, x.Current, ready))
			continue
		case x.Share > 0:
			g.Milli = x.Share
			fmt.Fprintf(&b, "%d replicas\n", byShare(x.Is, g, x.Current))
			continue
		}
		l.Goal = g
		use, err := l.replicas()
		if err != nil {
			fmt.Fprintf(&b, "%v\n", err)
			continue
		}
		fmt.Fprintf(&b, "%d replicas, used %d m, %d %%\n", use.Replicas, use.Milli, use.Utilization)
	}
	return b.String()
}

// TestUsage: what pods use asks for so many replicas.
func TestUsage(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	pod := func(i int, phase corev1.PodPhase, ready bool, age time.Duration) *corev1.Pod {
		status := corev1.ConditionFalse
		if ready {
			status = corev1.ConditionTrue
		}
		started := metav1.NewTime(now.Add(-age))
		return &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("p", i)},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1")}}}}},
			Status:     corev1.PodStatus{Phase: phase, StartTime: &started, Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: status, LastTransitionTime: started}}},
		}
	}
	const hour = time.Hour
	for _, c := range []struct {
		name    string
		goal    int32 // percent
		use     []int64
		pods    []*corev1.Pod
		want    int32
		problem string
	}{
		{"above", 50, []int64{900, 600}, []*corev1.Pod{pod(0, corev1.PodRunning, true, hour), pod(1, corev1.PodRunning, true, hour)}, 3, ""},
		{"within tolerance", 50, []int64{540, 540}, []*corev1.Pod{pod(0, corev1.PodRunning, true, hour), pod(1, corev1.PodRunning, true, hour)}, 2, ""},
		{"below", 50, []int64{100, 100}, []*corev1.Pod{pod(0, corev1.PodRunning, true, hour), pod(1, corev1.PodRunning, true, hour)}, 1, ""},
		{"a missing one is not idle when it goes down", 50, []int64{100, 100, -1}, []*corev1.Pod{pod(0, corev1.PodRunning, true, hour), pod(1, corev1.PodRunning, true, hour), pod(2, corev1.PodRunning, true, hour)}, 3, ""},
		{"a missing one is idle when it goes up", 50, []int64{1000, 1000, -1}, []*corev1.Pod{pod(0, corev1.PodRunning, true, hour), pod(1, corev1.PodRunning, true, hour), pod(2, corev1.PodRunning, true, hour)}, 4, ""},
		{"one that starts is idle when it goes up", 50, []int64{1000, 1000, 3000}, []*corev1.Pod{pod(0, corev1.PodRunning, true, hour), pod(1, corev1.PodRunning, true, hour), pod(2, corev1.PodRunning, false, time.Minute)}, 4, ""},
		{"a failed one is none", 50, []int64{600, -1}, []*corev1.Pod{pod(0, corev1.PodRunning, true, hour), pod(1, corev1.PodFailed, false, hour)}, 2, ""},
		{"nothing is known", 50, []int64{-1}, []*corev1.Pod{pod(0, corev1.PodRunning, true, hour)}, 0, "did not receive metrics"},
	} {
		samples := map[string]Sample{}
		for i, m := range c.use {
			if m >= 0 {
				samples[fmt.Sprint("p", i)] = Sample{Milli: m, At: now, Window: time.Minute}
			}
		}
		l := Load{Current: int32(len(c.pods)), Pods: c.pods, Samples: samples, Goal: Goal{Utilization: &c.goal, Resource: corev1.ResourceCPU, Above: 0.1, Below: 0.1}, Now: now, Config: conf}
		use, err := l.replicas()
		switch {
		case c.problem == "" && err != nil, c.problem != "" && (err == nil || !strings.Contains(err.Error(), c.problem)):
			t.Errorf("%s: %v", c.name, err)
		case err == nil && use.Replicas != c.want:
			t.Errorf("%s: %d, not %d", c.name, use.Replicas, c.want)
		}
	}
}

// TestValues: a value of something else asks for so many replicas.
func TestValues(t *testing.T) {
	g := Goal{Milli: 100_000, Above: 0.1, Below: 0.1}
	if n := byValue(250_000, g, 2, 2); n != 5 {
		t.Error(n)
	}
	if n := byValue(105_000, g, 2, 2); n != 2 {
		t.Error(n)
	}
	if n := byValue(250_000, g, 0, 0); n != 3 {
		t.Error(n)
	}
	if n := byShare(250_000, g, 2); n != 3 {
		t.Error(n)
	}
	if n := byShare(210_000, g, 2); n != 2 {
		t.Error(n)
	}
	if n := byShare(0, g, 2); n != 0 {
		t.Error(n)
	}
}

// An apiserver that does not count the generations of autoscalers has none that could be observed.
func TestObserved(t *testing.T) {
	for generation, want := range []string{"none", "1", "2"} {
		h := &autoscalingv2.HorizontalPodAutoscaler{}
		h.Generation, h.Spec.MaxReplicas = int64(generation), 3
		h.Status.ObservedGeneration = new(int64(0))
		p := decide(Snapshot{HPA: h, Config: conf, Current: 3, Now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)})
		got := "none"
		if g := p.Status.ObservedGeneration; g != nil {
			got = fmt.Sprint(*g)
		}
		if got != want {
			t.Errorf("of generation %d, %s is observed; want %s", generation, got, want)
		}
	}
}
