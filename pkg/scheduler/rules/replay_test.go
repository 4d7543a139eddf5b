package rules

import (
	"bufio"
	"compress/gzip"
	"encoding/json"
	"os"
	"slices"
	"testing"

	v1 "k8s.io/api/core/v1"
)

// recorded is one decision of upstream's scheduler.
type recorded struct {
	What  string
	Nodes []struct {
		Name          string
		Labels        map[string]string
		Taints        []v1.Taint
		Unschedulable bool
		Allocatable   v1.ResourceList
	}
	Standing                         []*v1.Pod
	Pod                              *v1.Pod
	Node, Reason, Message, Nominated string
	Evicted                          []string
}

func TestReplay(t *testing.T) {
	f, err := os.Open("testdata/scheduling-1.36.jsonl.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	lines := bufio.NewScanner(z)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var r recorded
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			t.Fatal(err)
		}
		seen++
		t.Run(r.What, func(t *testing.T) {
			table := NewTable(1)
			for _, n := range r.Nodes {
				node := &v1.Node{}
				node.Name, node.Labels = n.Name, n.Labels
				node.Spec.Taints, node.Spec.Unschedulable = n.Taints, n.Unschedulable
				node.Status.Allocatable = n.Allocatable
				if r.What == "image locality" && n.Name == "b" {
					// The record leaves out the image that the node held when it was made.
					node.Status.Images = []v1.ContainerImage{{Names: []string{"big:1"}, SizeBytes: 900 << 20}}
				}
				table.SetNode(node)
			}
			for _, p := range r.Standing {
				table.SetPod(NewPod(admitted(p)), p.Spec.NodeName)
			}
			profile := DefaultProfile(v1.DefaultSchedulerName)
			pod := admitted(r.Pod)
			var plan Plan
			if reason, message := Gated(pod); reason != "" {
				if reason != r.Reason || message != r.Message {
					t.Errorf("%s: %s; want %s: %s", reason, message, r.Reason, r.Message)
				}
				return
			} else if pod.Spec.SchedulerName != "" && pod.Spec.SchedulerName != profile.Name {
				if r.Reason != "" || r.Node != "" {
					t.Errorf("a pod of another scheduler got %q %q", r.Reason, r.Node)
				}
				return
			} else if plan, err = Decide(Snapshot{Table: table, Pod: NewPod(pod), Profile: profile}); err != nil {
				t.Fatal(err)
			}
			evicted := []string{}
			for _, v := range plan.Victims {
				evicted = append(evicted, v.Name())
			}
			if plan.Node != r.Node || plan.Message != r.Message || plan.Nominated != r.Nominated || !slices.Equal(evicted, r.Evicted) {
				t.Errorf("got  %q %q %q %v\nwant %q %q %q %v", plan.Node, plan.Message, plan.Nominated, evicted, r.Node, r.Message, r.Nominated, r.Evicted)
			}
		})
	}
	if lines.Err() != nil || seen != 38 {
		t.Errorf("read %d rows, %v; want 38", seen, lines.Err())
	}
}

// admitted does to a pod what the API server did: priorities, and limits that stand for requests.
func admitted(p *v1.Pod) *v1.Pod {
	p = p.DeepCopy()
	p.Namespace = "default"
	zero, high, never := int32(0), int32(1000), v1.PreemptNever
	if p.Spec.Priority == nil {
		p.Spec.Priority = &zero
	}
	switch p.Spec.PriorityClassName {
	case "high":
		p.Spec.Priority = &high
	case "high-never":
		p.Spec.Priority, p.Spec.PreemptionPolicy = &high, &never
	}
	for i := range p.Spec.Containers {
		r := &p.Spec.Containers[i].Resources
		for name, q := range r.Limits {
			if _, ok := r.Requests[name]; !ok {
				if r.Requests == nil {
					r.Requests = v1.ResourceList{}
				}
				r.Requests[name] = q
			}
		}
	}
	return p
}
