package iptables

import (
	"context"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/sextant-k8s/sextant/pkg/proxy/desired"
	"github.com/sextant-k8s/sextant/pkg/proxy/netlab"
)

const patience = 2 * time.Second

func ask(address string) string { return netlab.Who("tcp", address, patience) }

func TestKernel(t *testing.T) {
	netlab.Alone(t, "10.244.0.5/32", "10.244.0.6/32")
	ctx := context.Background()
	b, err := New()
	if err != nil {
		t.Fatal(err)
	}
	netlab.Answer(t, "tcp", "10.244.0.5:8080", "10.244.0.5:8080")
	netlab.Answer(t, "tcp", "10.244.0.6:8080", "10.244.0.6:8080")
	pods := [2]netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")}
	table := &desired.Table{Policy: desired.Policy{Pods: pods, NodePods: [2]netip.Prefix{netip.MustParsePrefix("10.244.0.0/24")}, Inside: pods, MasqueradeBit: 14, NodePortsAll: true}}
	sync := func(ips ...string) {
		t.Helper()
		p := desired.Port{Name: "x/web", Protocol: "tcp", ClusterIP: netip.MustParseAddr("10.96.0.10"), Number: 80, NodePort: 30080}
		for _, ip := range ips {
			p.Any = append(p.Any, desired.Endpoint{At: netip.AddrPortFrom(netip.MustParseAddr(ip), 8080), Local: true})
		}
		p.Inner, p.Outer = p.Any, p.Any
		q := p
		q.Name, q.ClusterIP, q.NodePort, q.Sticky = "x/sticky", netip.MustParseAddr("10.96.0.11"), 30081, 100
		var changes []desired.Change
		for _, ports := range [][]desired.Port{{p}, {q}} {
			if c, changed := table.Set(ports[0].Name, ports); changed {
				changes = append(changes, c)
			}
		}
		if _, err := b.Sync(ctx, table, changes); err != nil {
			t.Fatal(err)
		}
	}

	if n := b.Dropped(ctx); n != 0 {
		t.Errorf("without a rule, %d packets are dropped by it", n)
	}
	sync("10.244.0.5", "10.244.0.6")
	netlab.Sh(t, b.families[0].command+" -w -A KUBE-FORWARD -c 7 420 -m conntrack --ctstate INVALID -j DROP")
	if n := b.Dropped(ctx); n != 7 {
		t.Errorf("%d packets are dropped, want 7", n)
	}
	seen := map[string]int{}
	for range 40 {
		seen[ask("10.96.0.10:80")]++
	}
	if seen["10.244.0.5:8080"] < 5 || seen["10.244.0.6:8080"] < 5 {
		t.Errorf("40 requests were answered by %v; want both endpoints", seen)
	}
	first := ask("10.96.0.11:80")
	for range 10 {
		if got := ask("10.96.0.11:80"); got != first {
			t.Errorf("a sticky client went from %s to %s", first, got)
		}
	}
	if got := ask("10.244.0.5:30080"); !strings.HasSuffix(got, ":8080") {
		t.Errorf("the node port: %s", got)
	}

	sync("10.244.0.6")
	for range 10 {
		if got := ask("10.96.0.10:80"); got != "10.244.0.6:8080" {
			t.Errorf("after 10.244.0.5 went: %s", got)
		}
	}
	sync()
	if got := ask("10.96.0.10:80"); got != netlab.Refused {
		t.Errorf("a service without endpoints: %s; want refused", got)
	}

	// A new proxy finds what the old one left, and mends what others broke.
	if b, err = New(); err != nil {
		t.Fatal(err)
	}
	sync("10.244.0.5")
	if got := ask("10.96.0.10:80"); got != "10.244.0.5:8080" {
		t.Errorf("after a restart: %s", got)
	}
	if !b.Check(ctx) {
		t.Error("the tables are whole, but Check says they are not")
	}
	netlab.Sh(t, b.families[0].command+" -w -t nat -F PREROUTING")
	if b.Check(ctx) {
		t.Error("PREROUTING was flushed, and Check did not see it")
	}
	sync("10.244.0.5")
	if !b.Check(ctx) {
		t.Error("a sync did not mend PREROUTING")
	}

	if err := b.Cleanup(ctx); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"filter", "nat"} {
		out, err := run(ctx, "", b.families[0].save, "-t", name)
		if err != nil || strings.Contains(out, "KUBE-") {
			t.Errorf("left behind in %s: %v\n%s", name, err, out)
		}
	}
}
