package kubelet

import (
	"fmt"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"

	"github.com/sextant-k8s/sextant/pkg/kubelet/cpus"
	"github.com/sextant-k8s/sextant/pkg/kubelet/memory"
	"github.com/sextant-k8s/sextant/pkg/kubelet/topology"
)

// TestFixed: what a container has alone it keeps at its size; all else may change.
func TestFixed(t *testing.T) {
	l := topology.Layout{Machine: topology.Machine{Nodes: []int{0}}, Memory: map[int]uint64{0: 1 << 30}}
	for i := range 4 {
		l.CPUs = append(l.CPUs, topology.CPU{ID: i, Core: i})
	}
	pod := func(whole, part, mem string) *v1.Pod {
		c := func(name, cpu string) string {
			return fmt.Sprintf("{name: %s, resources: {requests: {cpu: %q, memory: %s}, limits: {cpu: %q, memory: %s}}}", name, cpu, mem, cpu, mem)
		}
		return podOf(t, "p", "{containers: ["+c("whole", whole)+", "+c("part", part)+"]}")
	}
	const forCPU, forMemory = `CPU Manager policy "static"`, `Memory Manager policy "Static"`
	for _, tc := range []struct {
		cpu, memory       string
		whole, part, size string
		want              string
	}{
		{"static", "None", "2", "500m", "64Mi", ""},
		{"static", "None", "3", "500m", "64Mi", forCPU},
		{"static", "None", "2500m", "500m", "64Mi", forCPU},
		{"static", "None", "2", "700m", "64Mi", ""},
		{"static", "None", "2", "1", "64Mi", forCPU},
		{"static", "None", "2", "500m", "96Mi", ""},
		{"static", "Static", "2", "500m", "96Mi", forMemory},
		{"static", "Static", "2", "700m", "64Mi", ""},
		{"none", "None", "3", "1", "96Mi", ""},
	} {
		k := &Kubelet{}
		k.cfg.Kubelet.CPUManagerPolicy, k.cfg.Kubelet.MemoryManagerPolicy = tc.cpu, tc.memory
		m, err := &managers{k: k}, error(nil)
		if m.cpus, err = cpus.New(cpus.Config{Dir: t.TempDir(), Layout: l, Policy: tc.cpu, Spare: 500, Changed: func() {}}); err != nil {
			t.Fatal(err)
		}
		kept := v1.ResourceList{v1.ResourceMemory: *podOf(t, "", "{containers: [{name: c, resources: {requests: {memory: 100Mi}}}]}").Spec.Containers[0].Resources.Requests.Memory()}
		if m.memory, err = memory.New(memory.Config{Dir: t.TempDir(), Layout: l, Policy: tc.memory, Kept: kept,
			Reserved: []kubeletv1beta1.MemoryReservation{{NumaNode: 0, Limits: kept}}}); err != nil {
			t.Fatal(err)
		}
		was := pod("2", "500m", "64Mi")
		for i := range was.Spec.Containers {
			at := topology.Hint{Nodes: topology.MaskOf(0)}
			if err := m.cpus.Allocate(was, &was.Spec.Containers[i], at); err != nil {
				t.Fatal(err)
			}
			if err := m.memory.Allocate(was, &was.Spec.Containers[i], at); err != nil {
				t.Fatal(err)
			}
		}
		f := m.fixed(pod(tc.whole, tc.part, tc.size), was)
		if tc.want == "" && f != nil || tc.want != "" && (f == nil || f.Reason != v1.PodReasonInfeasible || !strings.HasSuffix(f.Message, tc.want)) {
			t.Errorf("%+v: %+v", tc, f)
		}
	}
}
