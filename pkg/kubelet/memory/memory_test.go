package memory

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"
	"pgregory.net/rapid"

	"github.com/sextant-k8s/sextant/pkg/kubelet/topology"
)

const mi = 1 << 20

func layout(nodes int) topology.Layout {
	l := topology.Layout{Memory: map[int]uint64{}, Pages: map[int]map[uint64]uint64{}}
	for n := range nodes {
		l.Nodes = append(l.Nodes, n)
		l.Memory[n] = 100 * mi
		l.Pages[n] = map[uint64]uint64{2 * mi: 10}
	}
	return l
}

// TestSum: upstream kubelets refuse a file whose sum is not theirs. The first was written by one of them; the second has
// every field, summed as theirs was seen to be.
func TestSum(t *testing.T) {
	for _, file := range []string{
		`{"policyName":"None","machineState":{},"checksum":4236770233}`,
		`{"policyName":"Static","machineState":{"1":{"numberOfAssignments":1,"memoryMap":{"memory":{"total":100,"systemReserved":10,"allocatable":90,"reserved":5,"free":85}},"cells":[1]}},"entries":{"u":{"c":[{"numaAffinity":[1],"type":"memory","size":5}]}},"checksum":923700002}`,
	} {
		var c MemoryManagerCheckpoint
		if err := json.Unmarshal([]byte(file), &c); err != nil {
			t.Fatal(err)
		}
		if got := c.sum(); got != c.Checksum {
			t.Errorf("%s: got %d", file, got)
		}
		if raw, err := json.Marshal(c); err != nil || string(raw) != file {
			t.Errorf("written again it reads %s (%v)", raw, err)
		}
	}
}

func pod(uid string, memory ...string) *v1.Pod {
	p := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: uid, UID: types.UID(uid)}}
	for i, n := range memory {
		r := v1.ResourceList{v1.ResourceCPU: resource.MustParse("1"), v1.ResourceMemory: resource.MustParse(n)}
		p.Spec.Containers = append(p.Spec.Containers, v1.Container{Name: fmt.Sprintf("c%d", i), Resources: v1.ResourceRequirements{Requests: r, Limits: r}})
	}
	return p
}

func config(dir string, nodes int) Config {
	return Config{Dir: dir, Layout: layout(nodes), Policy: kubeletv1beta1.StaticMemoryManagerPolicy, Kept: v1.ResourceList{v1.ResourceMemory: resource.MustParse("10Mi")},
		Reserved: []kubeletv1beta1.MemoryReservation{{NumaNode: 0, Limits: v1.ResourceList{v1.ResourceMemory: resource.MustParse("10Mi")}}}}
}

// told is what the nodes have left, and their groups.
func told(m *Manager) string {
	var out []string
	for _, n := range m.cfg.Layout.Nodes {
		st := m.state.MachineState[n]
		out = append(out, fmt.Sprintf("%d: %dMi free of %dMi in %v for %d", n, st.MemoryMap[v1.ResourceMemory].Free/mi, st.MemoryMap[v1.ResourceMemory].Allocatable/mi, st.Cells, st.NumberOfAssignments))
	}
	return strings.Join(out, "; ")
}

func TestAllocate(t *testing.T) {
	dir := t.TempDir()
	m, err := New(config(dir, 2))
	if err != nil {
		t.Fatal(err)
	}
	// 20 MiB of each node are huge pages, 10 of the first are reserved.
	for _, step := range []struct {
		pod  *v1.Pod
		from topology.Mask
		want string
	}{
		{pod("a", "30Mi"), 0, "0: 40Mi free of 70Mi in [0] for 1; 1: 80Mi free of 80Mi in [1] for 0"},
		{pod("b", "50Mi"), topology.MaskOf(1), "0: 40Mi free of 70Mi in [0] for 1; 1: 30Mi free of 80Mi in [1] for 1"},
		{pod("c", "50Mi"), topology.MaskOf(1), "[memorymanager] failed to find NUMA nodes to extend the current topology hint"},
		{pod("d", "60Mi"), 0, "[memorymanager] failed to get the default NUMA affinity, no NUMA nodes with enough memory is available"},
	} {
		got := ""
		if err := m.Allocate(step.pod, &step.pod.Spec.Containers[0], topology.Hint{Nodes: step.from}); err != nil {
			got = err.Error()
		} else {
			got = told(m)
		}
		if got != step.want {
			t.Errorf("%s: got %s, want %s", step.pod.Name, got, step.want)
		}
	}
	if m, err = New(config(dir, 2)); err != nil || told(m) != "0: 40Mi free of 70Mi in [0] for 1; 1: 30Mi free of 80Mi in [1] for 1" {
		t.Error("after a restart:", told(m), err)
	}
	for _, uid := range []string{"a", "b"} {
		if err := m.Release(uid); err != nil {
			t.Fatal(err)
		}
	}
	p := pod("e", "120Mi")
	if err := m.Allocate(p, &p.Spec.Containers[0], topology.Hint{}); err != nil || told(m) != "0: 0Mi free of 70Mi in [0 1] for 1; 1: 30Mi free of 80Mi in [0 1] for 1" {
		t.Error(told(m), err)
	}
	// A node which serves in a group serves nobody alone.
	p = pod("f", "10Mi")
	if err := m.Allocate(p, &p.Spec.Containers[0], topology.Hint{}); err != nil || told(m) != "0: 0Mi free of 70Mi in [0 1] for 2; 1: 20Mi free of 80Mi in [0 1] for 2" {
		t.Error(told(m), err)
	}
}

func TestNew(t *testing.T) {
	for _, c := range []struct {
		change func(*Config)
		want   string
	}{
		{func(c *Config) { c.Policy = "static" }, `memoryManagerPolicy "static": want None or Static`},
		{func(c *Config) { c.Reserved = nil }, `the total amount "0" of type "memory" is not equal to the value "10Mi" determined by Node Allocatable feature`},
		{func(c *Config) { c.Reserved[0].NumaNode = 3 }, "reservedMemory: there is no NUMA node 3"},
		{func(c *Config) { c.Layout = layout(2) }, `start memory manager error: [memorymanager] the expected machine state is different from the real one, please drain this node and delete the memory manager checkpoint file "DIR/memory_manager_state" before restarting Kubelet`},
		{func(c *Config) { c.Policy, c.Reserved = "None", nil }, `start memory manager error: could not restore state from checkpoint: configured policy "None" differs from state checkpoint policy "Static", please drain this node and delete the memory manager checkpoint file "DIR/memory_manager_state" before restarting Kubelet`},
	} {
		dir := t.TempDir()
		if _, err := New(config(dir, 3)); err != nil {
			t.Fatal(err)
		}
		cfg := config(dir, 3)
		c.change(&cfg)
		if _, err := New(cfg); strings.ReplaceAll(fmt.Sprint(err), dir, "DIR") != c.want {
			t.Error(err)
		}
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, stateFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := New(config(dir, 1)); err == nil || !strings.Contains(err.Error(), "please drain this node") {
		t.Error(err)
	}
}

// TestBooks: whatever pods come and go, no node gives more than it has, what is given is what was asked for, and in the end
// all is back.
func TestBooks(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		dir, err := os.MkdirTemp(t.TempDir(), "")
		if err != nil {
			r.Fatal(err)
		}
		nodes := rapid.IntRange(1, 3).Draw(r, "nodes")
		m, err := New(config(dir, nodes))
		if err != nil {
			r.Fatal(err)
		}
		first := told(m)
		given := map[string]uint64{}
		for i := range rapid.IntRange(1, 12).Draw(r, "steps") {
			switch rapid.IntRange(0, 3).Draw(r, "step") {
			case 0:
				for uid := range given {
					if err := m.Release(uid); err != nil {
						r.Fatal(err)
					}
					delete(given, uid)
					break
				}
			case 1:
				if m, err = New(config(dir, nodes)); err != nil {
					r.Fatal(err)
				}
			default:
				n := rapid.IntRange(1, 150).Draw(r, "size")
				p := pod(fmt.Sprint(i), fmt.Sprintf("%dMi", n))
				if m.Allocate(p, &p.Spec.Containers[0], topology.Hint{Nodes: topology.Mask(rapid.IntRange(0, 1<<nodes-1).Draw(r, "from"))}) == nil {
					given[p.Name] = uint64(n) * mi
				}
			}
			var booked, asked uint64
			for _, st := range m.state.MachineState {
				x := st.MemoryMap[v1.ResourceMemory]
				if x.Free+x.Reserved != x.Allocatable {
					r.Fatal(told(m))
				}
				booked += x.Reserved
			}
			for _, n := range given {
				asked += n
			}
			if booked != asked {
				r.Fatalf("%d asked for, %d booked: %s", asked, booked, told(m))
			}
		}
		if err := m.Keep(func(string) bool { return false }); err != nil || told(m) != first {
			r.Fatal(told(m), first, err)
		}
	})
}
