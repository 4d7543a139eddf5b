package topology

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
	"pgregory.net/rapid"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// offer reads "cpu: 0 preferred; 0,1" or "gpu: none" or "disk: -".
func offer(t *testing.T, line string) Hints {
	name, rest, _ := strings.Cut(line, ":")
	rest = strings.TrimSpace(rest)
	switch rest {
	case "-":
		return Hints{name: nil}
	case "none":
		return Hints{name: {}}
	}
	var l []Hint
	for _, part := range strings.Split(rest, ";") {
		f := strings.Fields(part)
		h := Hint{Preferred: len(f) == 2}
		for _, n := range strings.Split(f[0], ",") {
			id, err := strconv.Atoi(n)
			if err != nil {
				t.Fatal(line, err)
			}
			h.Nodes |= MaskOf(id)
		}
		l = append(l, h)
	}
	return Hints{name: l}
}

// TestDecide plays testdata: each paragraph is what resources offer; below it stands what every policy makes of it.
func TestDecide(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no scripts", err)
	}
	m := Machine{Nodes: []int{0, 1, 2, 3}, Distance: map[int][]int{0: {10, 21, 11, 31}, 1: {21, 10, 31, 11}, 2: {11, 31, 10, 21}, 3: {31, 11, 21, 10}}}
	for _, name := range files {
		a, err := txtar.ParseFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for i, f := range a.Files {
			var b strings.Builder
			var offers []Hints
			for _, line := range strings.Split(strings.TrimSpace(string(f.Data)), "\n") {
				if strings.HasPrefix(line, "=> ") {
					continue
				}
				fmt.Fprintln(&b, line)
				offers = append(offers, offer(t, line))
			}
			for _, policy := range []string{BestEffort, Restricted, SingleNode} {
				h, ok := decide(policy, m, Options{Closest: strings.Contains(f.Name, "closest")}, offers)
				fmt.Fprintf(&b, "=> %s: %s admit=%t\n", policy, h, ok)
			}
			if b.String() != string(f.Data) {
				if !*update {
					t.Errorf("%s %s: got\n%swant\n%s", name, f.Name, b.String(), f.Data)
				}
				a.Files[i].Data = []byte(b.String())
			}
		}
		if *update {
			if err := os.WriteFile(name, txtar.Format(a), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestSingleNodeIsOne: the strictest policy never lets a pod in from more than one node that anyone named, and what
// is decided lies within what each resource offered.
func TestSingleNodeIsOne(t *testing.T) {
	m := Machine{Nodes: []int{0, 1, 2}}
	rapid.Check(t, func(r *rapid.T) {
		var offers []Hints
		for i := range rapid.IntRange(1, 3).Draw(r, "resources") {
			var l []Hint
			for range rapid.IntRange(0, 4).Draw(r, "hints") {
				l = append(l, Hint{Mask(rapid.IntRange(1, 7).Draw(r, "nodes")), rapid.Bool().Draw(r, "preferred")})
			}
			if l == nil {
				l = []Hint{}
			}
			offers = append(offers, Hints{fmt.Sprint(i): l})
		}
		h, ok := decide(SingleNode, m, Options{}, offers)
		if !ok {
			return
		}
		if h.Nodes.Count() != 1 {
			r.Fatalf("admitted to %v", h)
		}
		for _, o := range offers {
			for _, l := range o {
				held := false
				for _, x := range l {
					held = held || x.Preferred && x.Nodes == h.Nodes
				}
				if !held {
					r.Fatalf("%v is not among %v", h, l)
				}
			}
		}
		if _, ok := decide(Restricted, m, Options{}, offers); !ok {
			r.Fatal("what the strictest policy admits, restricted refuses")
		}
	})
}

func TestRead(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("devices/system/cpu/online", "0-7")
	for i := range 8 {
		cpu := fmt.Sprintf("devices/system/cpu/cpu%d/", i)
		write(cpu+"topology/physical_package_id", fmt.Sprint(i%4/2))
		write(cpu+"topology/core_id", fmt.Sprint(i%2))
		write(cpu+"cache/index3/shared_cpu_list", fmt.Sprintf("%d-%d,%d-%d", i%4/2*2, i%4/2*2+1, i%4/2*2+4, i%4/2*2+5))
	}
	for n, cpus := range []string{"0-1,4-5", "2-3,6-7"} {
		node := fmt.Sprintf("devices/system/node/node%d/", n)
		write(node+"cpulist", cpus)
		write(node+"distance", []string{"10 20", "20 10"}[n])
		write(node+"meminfo", fmt.Sprintf("Node %d MemTotal:       1024 kB", n))
		write(node+"hugepages/hugepages-2048kB/nr_hugepages", "3")
	}
	l, err := Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprint(l.Nodes, l.Distance, l.Memory, l.Pages, l.CPUs)
	want := "[0 1] map[0:[10 20] 1:[20 10]] map[0:1048576 1:1048576] map[0:map[2097152:3] 1:map[2097152:3]] " +
		"[{0 0 0 0 0} {1 1 0 0 0} {2 2 1 1 2} {3 3 1 1 2} {4 0 0 0 0} {5 1 0 0 0} {6 2 1 1 2} {7 3 1 1 2}]"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestNew(t *testing.T) {
	m := Machine{Nodes: []int{0, 1, 2, 3, 4, 5, 6, 7, 8}}
	for _, c := range []struct {
		policy, scope string
		options       map[string]string
		want          string
	}{
		{"", "", nil, "<nil>"}, {"none", "pod", nil, "<nil>"}, {"numa", "", nil, `topologyManagerPolicy "numa": want none, best-effort, restricted or single-numa-node`},
		{"restricted", "node", nil, `topologyManagerScope "node": want container or pod`},
		{"restricted", "", nil, "unsupported on machines with more than 8 NUMA Nodes: set topologyManagerPolicy none, or the option max-allowable-numa-nodes"},
		{"restricted", "", map[string]string{"max-allowable-numa-nodes": "9"}, "<nil>"},
		{"restricted", "", map[string]string{"near": "true"}, "topologyManagerPolicyOptions near=true: no such option"},
	} {
		if _, err := New(c.policy, c.scope, c.options, m); fmt.Sprint(err) != c.want {
			t.Errorf("%+v: %v", c, err)
		}
	}
}
