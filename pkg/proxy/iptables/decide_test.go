package iptables

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
	v1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"sigs.k8s.io/yaml"

	"github.com/sextant-k8s/sextant/pkg/proxy/desired"
)

var update = flag.Bool("update", false, "write what came out into the goldens")

// Each script holds objects.yaml, and what they become: table.txt, the desired table, and rules.txt, the kernel's.
func TestGoldens(t *testing.T) {
	scripts, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(scripts) == 0 {
		t.Fatal("no scripts", err)
	}
	for _, path := range scripts {
		t.Run(filepath.Base(path), func(t *testing.T) {
			ar, err := txtar.ParseFile(path)
			if err != nil {
				t.Fatal(err)
			}
			table := desired.Decide(parse(t, string(ar.Files[0].Data)))
			got := []txtar.File{ar.Files[0], {Name: "table.txt", Data: []byte(table.String())},
				{Name: "rules.txt", Data: []byte(decide(table, Config{ClusterCIDR: "10.244.0.0/16", PodCIDR: "10.244.0.0/24", MasqueradeBit: 14}).String())}}
			out := txtar.Format(&txtar.Archive{Comment: ar.Comment, Files: got})
			if *update {
				if err := os.WriteFile(path, out, 0o644); err != nil {
					t.Fatal(err)
				}
			} else if want, err := os.ReadFile(path); err != nil || !bytes.Equal(want, out) {
				t.Errorf("differs from %s (run with -update and read the diff): %v\n%s", path, err, out)
			}
		})
	}
}

// parse reads objects as node a sees them.
func parse(t *testing.T, text string) desired.Snapshot {
	t.Helper()
	s := desired.Snapshot{Node: "a"}
	for _, doc := range strings.Split(text, "---\n") {
		if strings.Contains(doc, "kind: Service\n") {
			svc := &v1.Service{}
			if err := yaml.UnmarshalStrict([]byte(doc), svc); err != nil {
				t.Fatal(err)
			}
			s.Services = append(s.Services, svc)
			continue
		}
		slice := &discoveryv1.EndpointSlice{}
		if err := yaml.UnmarshalStrict([]byte(doc), slice); err != nil {
			t.Fatal(err)
		}
		s.Slices = append(s.Slices, slice)
	}
	return s
}

func TestOnlyChangedChainsAreWritten(t *testing.T) {
	end := func(ips ...string) (out []desired.Endpoint) {
		for _, ip := range ips {
			out = append(out, desired.Endpoint{IP: ip, Port: 80})
		}
		return out
	}
	port := func(name, ip string, ends []desired.Endpoint) desired.Port {
		return desired.Port{Name: name, Protocol: "tcp", ClusterIP: ip, Number: 80, Inner: ends, Outer: ends, Any: ends}
	}
	before := decide(desired.Table{Ports: []desired.Port{port("x/one", "10.96.0.1", end("1.1.1.1", "1.1.1.2")), port("x/two", "10.96.0.2", end("1.1.1.3"))}}, Config{})
	after := decide(desired.Table{Ports: []desired.Port{port("x/one", "10.96.0.1", end("1.1.1.1", "1.1.1.9")), port("x/two", "10.96.0.2", end("1.1.1.3"))}}, Config{})
	text := restore(before, after, nil)
	for _, want := range []string{"1.1.1.9", "-X KUBE-SEP-" + hash("x/one", "tcp", "1.1.1.2:80")} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing from\n%s", want, text)
		}
	}
	for _, not := range []string{"KUBE-SERVICES", "x/two", "1.1.1.3", "*filter"} {
		if strings.Contains(text, not) {
			t.Errorf("%q has not changed, but is written:\n%s", not, text)
		}
	}
	if text := restore(after, after, nil); text != "" {
		t.Errorf("nothing changed, but is written:\n%s", text)
	}
}
