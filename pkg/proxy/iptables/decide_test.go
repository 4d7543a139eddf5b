package iptables

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/sextant-k8s/sextant/pkg/proxy/desired"
)

func ends(ips ...string) (out []desired.Endpoint) {
	for _, ip := range ips {
		out = append(out, desired.Endpoint{At: netip.AddrPortFrom(netip.MustParseAddr(ip), 80)})
	}
	return out
}

func port(name, ip string, to []desired.Endpoint) []desired.Port {
	return []desired.Port{{Name: name, Protocol: "tcp", ClusterIP: netip.MustParseAddr(ip), Number: 80, Inner: to, Outer: to, Any: to}}
}

func TestOnlyChangedChainsAreWritten(t *testing.T) {
	table := &desired.Table{}
	table.Set("x/one", port("x/one", "10.96.0.1", ends("1.1.1.1", "1.1.1.2")))
	table.Set("x/two", port("x/two", "10.96.0.2", ends("1.1.1.3")))
	c, _ := table.Set("x/one", port("x/one", "10.96.0.1", ends("1.1.1.1", "1.1.1.9")))
	text, more := rules{}.partial([]desired.Change{c})
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
	if more.sum() != 0 {
		t.Errorf("the number of rules grew by %v", more)
	}
	if _, changed := table.Set("x/one", port("x/one", "10.96.0.1", ends("1.1.1.1", "1.1.1.9"))); changed {
		t.Error("nothing changed, but Set says so")
	}
}

// kernelModel does what iptables-restore --noflush does.
type kernelModel map[string][]string

func (k kernelModel) restore(t *rapid.T, text string) {
	table := ""
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		verb, rest, _ := strings.Cut(line, " ")
		chain, rule, _ := strings.Cut(rest, " ")
		at := table + " " + chain
		switch {
		case line[0] == '*':
			table = line[1:]
		case line[0] == ':':
			k[table+" "+verb[1:]] = []string{}
		case verb == "-A":
			k[at] = append(k[at], rule)
		case verb == "-I":
			k[at] = append([]string{rule}, k[at]...)
		case verb == "-D":
			i := slices.Index(k[at], rule)
			if i < 0 {
				t.Fatalf("no rule to delete: %s", line)
			}
			k[at] = slices.Delete(slices.Clone(k[at]), i, i+1)
		case verb == "-X":
			if len(k[at]) > 0 {
				t.Fatalf("deleted while full: %s", line)
			}
			delete(k, at)
		case line != "COMMIT" && line[0] != '#':
			t.Fatalf("what is %q", line)
		}
	}
}

// Writing changes one after the other leads to the same rules as writing the last table at once.
func TestPartialWritesAddUp(t *testing.T) {
	r := rules{Policy: desired.Policy{MasqueradeBit: 14, NodePortsAll: true}}
	rapid.Check(t, func(t *rapid.T) {
		table, kernel := &desired.Table{}, kernelModel{}
		text, total := r.full(table.All(false), nil)
		kernel.restore(t, text)
		for range rapid.IntRange(1, 12).Draw(t, "steps") {
			name := rapid.SampledFrom([]string{"x/a", "x/b"}).Draw(t, "service")
			var ports []desired.Port
			if rapid.IntRange(0, 4).Draw(t, "there") > 0 {
				all := ends(rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"1.1.1.1", "1.1.1.2", "1.1.1.3", "1.1.1.4"}), 0, 4, rapid.ID).Draw(t, "ends")...)
				ports = port(name, "10.96.0."+map[string]string{"x/a": "1", "x/b": "2"}[name], all)
				p := &ports[0]
				p.Sticky = rapid.SampledFrom([]int32{0, 9}).Draw(t, "sticky")
				p.NodePort = rapid.SampledFrom([]uint16{0, 30001}).Draw(t, "node port")
				if p.OuterLocal = rapid.Bool().Draw(t, "local"); p.OuterLocal {
					p.Outer = p.Any[:len(p.Any)/2]
				}
				if rapid.Bool().Draw(t, "balancer") {
					p.Balancers, p.Guarded = []netip.Addr{netip.MustParseAddr("203.0.113.1")}, rapid.Bool().Draw(t, "guarded")
				}
			}
			if c, changed := table.Set(name, ports); changed {
				text, more := r.partial([]desired.Change{c})
				total = total.plus(more)
				kernel.restore(t, text)
			}
		}
		whole := kernelModel{}
		text, n := r.full(table.All(false), nil)
		whole.restore(t, text)
		if n != total {
			t.Fatalf("%v rules counted, %v written", total, n)
		}
		if len(whole) != len(kernel) {
			t.Fatalf("chains: have %d, want %d", len(kernel), len(whole))
		}
		for chain, want := range whole {
			have := kernel[chain]
			if slices.ContainsFunc(shared, func(s string) bool { return strings.HasSuffix(chain, " "+s) }) {
				have, want = slices.Sorted(slices.Values(have)), slices.Sorted(slices.Values(want))
			}
			// Endpoints keep their places, which a fresh table does not know: compare what is led to, not in which order.
			if len(have) != len(want) {
				t.Fatalf("%s: have %q, want %q", chain, have, want)
			}
		}
	})
}
