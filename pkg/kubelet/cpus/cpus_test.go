package cpus

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/cpuset"
	"pgregory.net/rapid"
	"sigs.k8s.io/yaml"

	"github.com/sextant-k8s/sextant/pkg/kubelet/topology"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// layout makes a machine of sockets x NUMA nodes per socket x cores per node x threads per core. CPUs are numbered as
// kernels do: the first thread of every core, then the second.
func layout(sockets, nodes, cores, threads int) topology.Layout {
	l := topology.Layout{}
	total := sockets * nodes * cores
	for t := range threads {
		for i := range total {
			node := i / cores
			l.CPUs = append(l.CPUs, topology.CPU{ID: t*total + i, Core: i, Node: node, Socket: node / nodes, Cache: i / max(cores/2, 1) * max(cores/2, 1)})
		}
	}
	for n := range sockets * nodes {
		l.Nodes = append(l.Nodes, n)
	}
	return l
}

type scene struct {
	Machine       []int
	Free, Reusing string
	Need          int
	Nodes         []int
	Options       Options
}

func TestDecide(t *testing.T) {
	const name = "testdata/take.txtar"
	a, err := txtar.ParseFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for i, f := range a.Files {
		in, _, _ := strings.Cut(string(f.Data), "=>")
		var s scene
		if err := yaml.UnmarshalStrict([]byte(in), &s); err != nil {
			t.Fatal(f.Name, err)
		}
		l := layout(s.Machine[0], s.Machine[1], s.Machine[2], s.Machine[3])
		free := l.All()
		if s.Free != "" {
			if free, err = cpuset.Parse(s.Free); err != nil {
				t.Fatal(err)
			}
		}
		again, err := cpuset.Parse(s.Reusing)
		if err != nil {
			t.Fatal(err)
		}
		ask := Ask{CPUs: l.CPUs, Free: free, Reusable: again, Need: s.Need, Nodes: topology.MaskOf(s.Nodes...), Options: s.Options}
		got := in
		if set, err := decide(ask); err != nil {
			got += fmt.Sprintf("=> %v\n", err)
		} else {
			got += fmt.Sprintf("=> %s\n", set)
		}
		got += fmt.Sprintf("=> hints %v\n", hints(ask, l.Nodes))
		if got != string(f.Data) {
			if !*update {
				t.Errorf("%s: got\n%swant\n%s", f.Name, got, f.Data)
			}
			a.Files[i].Data = []byte(got)
		}
	}
	if *update {
		if err := os.WriteFile(name, txtar.Format(a), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// TestSum: upstream kubelets refuse a file whose sum is not theirs. These files were written by them.
func TestSum(t *testing.T) {
	for _, file := range []string{
		`{"policyName":"none","defaultCpuSet":"","checksum":1353318690}`,
		`{"policyName":"static","defaultCpuSet":"0,4-27","entries":{"39b37746-7f5e-4064-b8e1-eebd2bfaa003":{"app":"1-3"}},"checksum":3300516549}`,
	} {
		var c CPUManagerCheckpoint
		if err := json.Unmarshal([]byte(file), &c); err != nil {
			t.Fatal(err)
		}
		if got := c.sum(); got != c.Checksum {
			t.Errorf("%s: got %d", file, got)
		}
	}
}

func pod(uid string, cpu ...string) *v1.Pod {
	p := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: uid, UID: types.UID(uid)}}
	for i, n := range cpu {
		r := v1.ResourceList{v1.ResourceCPU: resource.MustParse(n), v1.ResourceMemory: resource.MustParse("1Mi")}
		p.Spec.Containers = append(p.Spec.Containers, v1.Container{Name: fmt.Sprintf("c%d", i), Resources: v1.ResourceRequirements{Requests: r, Limits: r}})
	}
	return p
}

// TestNeverShared: whatever pods come and go, and however often the kubelet restarts, no two containers have the same CPU,
// nobody has a reserved one, each has as many as it asked for, and in the end all are back.
func TestNeverShared(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		dir, err := os.MkdirTemp(t.TempDir(), "")
		if err != nil {
			r.Fatal(err)
		}
		l := layout(rapid.IntRange(1, 2).Draw(r, "sockets"), rapid.IntRange(1, 2).Draw(r, "nodes"), rapid.IntRange(1, 4).Draw(r, "cores"), rapid.IntRange(1, 2).Draw(r, "threads"))
		options := map[string]string{}
		for _, o := range [][]string{{"full-pcpus-only", "align-by-socket"}, {"distribute-cpus-across-numa"}, {"strict-cpu-reservation"}, {"distribute-cpus-across-cores"}, {"prefer-align-cpus-by-uncorecache"}, nil}[rapid.IntRange(0, 5).Draw(r, "options")] {
			options[o] = "true"
		}
		start := func() *Manager {
			m, err := New(Config{Dir: dir, Layout: l, Policy: "static", Options: options, Spare: 500, Changed: func() {}})
			if err != nil {
				r.Fatal(err)
			}
			return m
		}
		m := start()
		first := m.state.shared
		pods := map[string]*v1.Pod{}
		for i := range rapid.IntRange(1, 15).Draw(r, "steps") {
			switch rapid.IntRange(0, 3).Draw(r, "step") {
			case 0:
				for uid := range pods {
					if err := m.Release(uid); err != nil {
						r.Fatal(err)
					}
					delete(pods, uid)
					break
				}
			case 1:
				m = start()
			default:
				p := pod(fmt.Sprint(i), fmt.Sprint(rapid.IntRange(1, 4).Draw(r, "cpu")), rapid.SampledFrom([]string{"1", "2", "500m"}).Draw(r, "other"))
				pods[string(p.UID)] = p
				for j := range p.Spec.Containers {
					if m.Allocate(p, &p.Spec.Containers[j], topology.Hint{Nodes: topology.Mask(rapid.IntRange(0, 1).Draw(r, "from"))}) != nil {
						delete(pods, string(p.UID))
						if err := m.Release(string(p.UID)); err != nil {
							r.Fatal(err)
						}
						break
					}
				}
			}
			seen := m.reserved
			for uid, p := range pods {
				for j := range p.Spec.Containers {
					c := &p.Spec.Containers[j]
					set, alone := m.Of(uid, c.Name)
					if n := m.Whole(p, c); n != set.Size() && alone || alone != (n > 0) {
						r.Fatalf("asked for %d, has %s alone=%t", n, set, alone)
					}
					if !alone {
						continue
					}
					if !set.Intersection(seen).IsEmpty() {
						r.Fatalf("%s of %s/%s is somebody else's too", set, uid, c.Name)
					}
					seen = seen.Union(set)
					if shared, _ := m.Of("other", "c"); !shared.Intersection(set).IsEmpty() {
						r.Fatalf("the shared pool %s has some of %s", shared, set)
					}
				}
			}
		}
		if err := m.Keep(func(string) bool { return false }); err != nil {
			r.Fatal(err)
		}
		if !m.state.shared.Equals(first) {
			r.Fatalf("in the end the shared pool is %s, it was %s", m.state.shared, first)
		}
	})
}

func TestNew(t *testing.T) {
	dir := t.TempDir()
	l := layout(1, 1, 2, 2)
	for _, c := range []struct {
		file, policy string
		options      map[string]string
		reserved     int
		want         string
	}{
		{"", "dynamic", nil, -1, `cpuManagerPolicy "dynamic": want none or static`},
		{"", "static", nil, -1, "[cpumanager] unable to determine reserved CPU resources for static policy: the static policy requires systemReserved.cpu + kubeReserved.cpu, or reservedSystemCPUs, to be greater than zero"},
		{"", "static", map[string]string{"full-cores": "true"}, 0, `cpuManagerPolicyOptions: unsupported cpumanager option: "full-cores" (true)`},
		{"", "static", nil, 7, "reservedSystemCPUs 7 are not all online: there are 0-3"},
		{`{"policyName":"none","defaultCpuSet":"","checksum":1353318690}`, "static", nil, 0, `start cpu manager error: could not restore state from checkpoint: configured policy "static" differs from state checkpoint policy "none", please drain this node and delete the CPU manager checkpoint file "DIR/cpu_manager_state" before restarting Kubelet`},
		{`{"policyName":"static","defaultCpuSet":"0-2","checksum":1}`, "static", nil, 0, `start cpu manager error: current set of available CPUs "0-3" doesn't match with CPUs in state "0-2"; please drain this node and delete the CPU manager checkpoint file "DIR/cpu_manager_state" before restarting Kubelet`},
		{`{"policyName":"static","defaultCpuSet":"0-3","entries":{"u":{"c":"3"}},"checksum":1}`, "static", nil, 0, `start cpu manager error: pod: u, container: c cpuset: "3" overlaps with default cpuset "0-3"; please drain this node and delete the CPU manager checkpoint file "DIR/cpu_manager_state" before restarting Kubelet`},
		{`{`, "none", nil, -1, `start cpu manager error: could not restore state from checkpoint: unexpected end of JSON input, please drain this node and delete the CPU manager checkpoint file "DIR/cpu_manager_state" before restarting Kubelet`},
		{`{"policyName":"static","defaultCpuSet":"0-2","entries":{"u":{"c":"3"}},"checksum":1}`, "static", nil, 0, "<nil>"},
	} {
		path := filepath.Join(dir, stateFile)
		_ = os.Remove(path)
		if c.file != "" {
			if err := os.WriteFile(path, []byte(c.file), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		cfg := Config{Dir: dir, Layout: l, Policy: c.policy, Options: c.options, Changed: func() {}}
		if c.reserved >= 0 {
			cfg.Reserved = cpuset.New(c.reserved)
		}
		if _, err := New(cfg); strings.ReplaceAll(fmt.Sprint(err), dir, "DIR") != c.want {
			t.Errorf("%+v: %v", c, err)
		}
	}
}
