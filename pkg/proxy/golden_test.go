package proxy

import (
	"bytes"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
	v1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/yaml"

	"github.com/sextant-k8s/sextant/pkg/proxy/desired"
	"github.com/sextant-k8s/sextant/pkg/proxy/iptables"
	"github.com/sextant-k8s/sextant/pkg/proxy/ipvs"
	"github.com/sextant-k8s/sextant/pkg/proxy/nftables"
)

var update = flag.Bool("update", false, "write what came out into the goldens")

// Each script holds objects.yaml, and what they become on node a, in zone z1: the desired table, and every back end's rules.
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
			table, health := parse(t, string(ar.Files[0].Data))
			got := []txtar.File{ar.Files[0]}
			all := printed(table)
			if health != "" {
				all["health"] = health
			}
			for name, text := range all {
				got = append(got, txtar.File{Name: name, Data: []byte(text)})
			}
			slices.SortFunc(got[1:], func(a, b txtar.File) int { return strings.Compare(a.Name, b.Name) })
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

func printed(t *desired.Table) map[string]string {
	return map[string]string{"desired": t.String(), "iptables": iptables.Print(t), "nftables": nftables.Print(t),
		"ipvs": ipvs.Print(t, netip.MustParseAddr("192.0.2.10"), netip.MustParseAddr("2001:db8::10")), "ipvs-beside": nftables.PrintBeside(t)}
}

// parse reads objects as node a sees them: those that it asks for, into a table, and what balancers are told about health.
func parse(t *testing.T, text string) (table *desired.Table, health string) {
	t.Helper()
	s := newState("a", func() {})
	asked, err := labels.Parse(notOthers)
	if err != nil {
		t.Fatal(err)
	}
	s.zone = "z1"
	for _, doc := range strings.Split(text, "---\n") {
		if strings.Contains(doc, "kind: Service\n") {
			svc := &v1.Service{}
			if err := yaml.UnmarshalStrict([]byte(doc), svc); err != nil {
				t.Fatal(err)
			}
			if asked.Matches(labels.Set(svc.Labels)) {
				s.setService(desired.NewService(svc))
			}
			continue
		}
		slice := &discoveryv1.EndpointSlice{}
		if err := yaml.UnmarshalStrict([]byte(doc), slice); err != nil {
			t.Fatal(err)
		}
		if asked.Matches(labels.Set(slice.Labels)) {
			s.setSlice(desired.NewSlice(slice, "a"))
		}
	}
	table = &desired.Table{Policy: desired.Policy{
		Pods:     [2]netip.Prefix{netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("fd00:244::/48")},
		NodePods: [2]netip.Prefix{netip.MustParsePrefix("10.244.0.0/24"), netip.MustParsePrefix("fd00:244::/64")},
		Inside:   [2]netip.Prefix{netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("fd00:244::/48")}, MasqueradeBit: 14, NodePortsAll: true}}
	b := s.take()
	b.apply(table)
	for _, p := range b.parts {
		if p.service != nil && p.service.HealthPort > 0 {
			health += fmt.Sprintf("port %d: %s has %d here\n", p.service.HealthPort, p.key, desired.ReadyHere(p.slices))
		}
	}
	return table, health
}

// Ten slices of a thousand endpoints are one Service of ten thousand, in every back end.
func TestManyEndpoints(t *testing.T) {
	const slices, each = 10, 1000
	s := newState("a", func() {})
	svc := &v1.Service{Spec: v1.ServiceSpec{ClusterIP: "10.96.0.1", Ports: []v1.ServicePort{{Port: 80}}}}
	svc.Namespace, svc.Name = "x", "many"
	s.setService(desired.NewService(svc))
	port := int32(8080)
	for i := range slices {
		slice := &discoveryv1.EndpointSlice{AddressType: discoveryv1.AddressTypeIPv4, Ports: []discoveryv1.EndpointPort{{Port: &port}}}
		slice.Namespace, slice.Name, slice.Labels = "x", fmt.Sprintf("many-%d", i), map[string]string{discoveryv1.LabelServiceName: "many"}
		for j := range each {
			slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{Addresses: []string{fmt.Sprintf("10.%d.%d.%d", 100+i, j/250, 1+j%250)}})
		}
		s.setSlice(desired.NewSlice(slice, "a"))
	}
	table := &desired.Table{}
	s.take().apply(table)
	for name, text := range printed(table) {
		if got := strings.Count(text, "10.109.3.250"); name != "ipvs-beside" && got == 0 {
			t.Errorf("%s does not have the last endpoint", name)
		}
		if per := map[string]string{"iptables": "--to-destination ", "nftables": "  endpoints ", "ipvs": "  -> "}[name]; per != "" && strings.Count(text, per) != slices*each {
			t.Errorf("%s leads to %d endpoints, want %d", name, strings.Count(text, per), slices*each)
		}
	}
}
