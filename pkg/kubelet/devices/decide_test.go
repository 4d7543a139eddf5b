package devices

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
	"pgregory.net/rapid"
	"sigs.k8s.io/yaml"

	"github.com/sextant-k8s/sextant/pkg/kubelet/topology"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// scene is an Ask as scripts write it: Devices are "a", "a@1" near NUMA node 1, "!a" unhealthy.
type scene struct {
	Need                                int
	Unregistered                        bool
	Devices, Taken, Own, Reusable, Near []string
	Nodes                               []int
	Prefers                             []string
}

func (s scene) ask() Ask {
	a := Ask{Resource: "x.com/d", Pod: "p", Container: "c", Need: s.Need, Registered: !s.Unregistered, Healthy: map[string]topology.Mask{}, Taken: map[string]bool{}, Own: s.Own, Reusable: s.Reusable, Nodes: topology.MaskOf(s.Nodes...)}
	for _, d := range s.Devices {
		id, node, located := strings.Cut(d, "@")
		if strings.HasPrefix(id, "!") {
			continue
		}
		a.Healthy[id] = 0
		if located {
			var n int
			_, _ = fmt.Sscan(node, &n) // scripts are well-formed
			a.Healthy[id] = topology.MaskOf(n)
		}
	}
	for _, id := range s.Taken {
		a.Taken[id] = true
	}
	return a
}

func TestDecide(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no scripts", err)
	}
	for _, name := range files {
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
			got := in
			c, err := decide(s.ask())
			if err != nil {
				got += "=> " + err.Error() + "\n"
			} else {
				got += "=> " + c.String() + "\n"
				if !c.Keep {
					got += fmt.Sprintf("=> takes %v\n", settle(c, s.Need, s.Prefers))
				}
			}
			got += fmt.Sprintf("=> hints %v\n", hints(s.ask(), []int{0, 1}))
			if got != string(f.Data) {
				if !*update {
					t.Errorf("%s %s: got\n%swant\n%s", name, f.Name, got, f.Data)
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
}

// TestNeverShared: whatever pods come and go, no device is given to two containers which run at once, none unhealthy is
// given, and each gets as many as it asked for.
func TestNeverShared(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		all := []string{"a", "b", "c", "d", "e", "f"}
		nodes := map[string]topology.Mask{}
		for _, id := range all {
			nodes[id] = topology.Mask(rapid.IntRange(0, 3).Draw(r, "nodes"))
		}
		has := map[int][]string{}
		for pod := range rapid.IntRange(1, 12).Draw(r, "pods") {
			if len(has) > 0 && rapid.Bool().Draw(r, "one ends") {
				for p := range has {
					delete(has, p)
					break
				}
			}
			a := Ask{Resource: "x.com/d", Need: rapid.IntRange(1, 4).Draw(r, "need"), Registered: true, Healthy: map[string]topology.Mask{}, Taken: map[string]bool{},
				Nodes: topology.Mask(rapid.IntRange(0, 3).Draw(r, "from"))}
			for _, id := range all {
				if rapid.IntRange(0, 5).Draw(r, "health") > 0 {
					a.Healthy[id] = nodes[id]
				}
			}
			for _, ids := range has {
				for _, id := range ids {
					a.Taken[id] = true
				}
			}
			c, err := decide(a)
			if err != nil {
				continue
			}
			ids := settle(c, a.Need, rapid.SliceOfN(rapid.SampledFrom(append(all, "made up")), 0, 4).Draw(r, "prefers"))
			if len(ids) != a.Need {
				r.Fatalf("asked for %d, got %v", a.Need, ids)
			}
			for i, id := range ids {
				if _, ok := a.Healthy[id]; !ok || a.Taken[id] || i > 0 && ids[i-1] == id {
					r.Fatalf("%s of %v is taken, twice there or not healthy", id, ids)
				}
			}
			has[pod] = ids
		}
	})
}
