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

// left is what upstream's proxy has in the kernel with one endpoint, in short, and what is an administrator's.
const left = `*filter
:KUBE-EXTERNAL-SERVICES - [0:0]
:KUBE-FIREWALL - [0:0]
:KUBE-FORWARD - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-PROXY-CANARY - [0:0]
:KUBE-PROXY-FIREWALL - [0:0]
:KUBE-SERVICES - [0:0]
:THEIRS - [0:0]
-A INPUT -m conntrack --ctstate NEW -m comment --comment "kubernetes load balancer firewall" -j KUBE-PROXY-FIREWALL
-A INPUT -m comment --comment "kubernetes health check service ports" -j KUBE-NODEPORTS
-A INPUT -m conntrack --ctstate NEW -m comment --comment "kubernetes externally-visible service portals" -j KUBE-EXTERNAL-SERVICES
-A INPUT -j KUBE-FIREWALL
-A INPUT -j THEIRS
-A FORWARD -m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD
-A OUTPUT -m conntrack --ctstate NEW -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A KUBE-NODEPORTS -p tcp -m tcp --dport 32000 -j ACCEPT
-A KUBE-PROXY-FIREWALL -d 203.0.113.1/32 -p tcp -m tcp --dport 80 -j DROP
COMMIT
*nat
:KUBE-MARK-MASQ - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-SEP-AAAAAAAAAAAAAAAA - [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-SVC-AAAAAAAAAAAAAAAA - [0:0]
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A OUTPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING
-A KUBE-SERVICES -d 10.96.0.10/32 -p tcp -m tcp --dport 80 -j KUBE-SVC-AAAAAAAAAAAAAAAA
-A KUBE-SVC-AAAAAAAAAAAAAAAA -j KUBE-SEP-AAAAAAAAAAAAAAAA
-A KUBE-SEP-AAAAAAAAAAAAAAAA -s 10.244.0.9/32 -j KUBE-MARK-MASQ
-A KUBE-SEP-AAAAAAAAAAAAAAAA -p tcp -m tcp -j DNAT --to-destination 10.244.0.5:8080
COMMIT
`

// What upstream's proxy left serves until ours has written, and nothing of it stays; whichever variant of the tools it used.
func TestUpstreamsRulesAreTakenOver(t *testing.T) {
	netlab.Alone(t, "10.244.0.5/32", "10.244.0.6/32")
	ctx := context.Background()
	netlab.Answer(t, "tcp", "10.244.0.5:8080", "upstream's")
	netlab.Answer(t, "tcp", "10.244.0.6:8080", "ours")
	b, err := New()
	if err != nil {
		t.Fatal(err)
	}
	all := []*Backend{b}
	if other, err := NewOther(); err == nil {
		all = append(all, other)
	}
	for _, one := range all {
		if err := one.families[0].write(ctx, left); err != nil {
			t.Fatal(err)
		}
	}
	if got := ask("10.96.0.10:80"); got != "upstream's" {
		t.Fatalf("upstream's rules lead to %s", got)
	}
	to := []desired.Endpoint{{At: netip.MustParseAddrPort("10.244.0.6:8080")}}
	table := &desired.Table{Policy: desired.Policy{MasqueradeBit: 14}}
	c, _ := table.Set("x/web", []desired.Port{{Name: "x/web", Protocol: "tcp", ClusterIP: netip.MustParseAddr("10.96.0.10"), Number: 80, Inner: to, Outer: to, Any: to}})
	if _, err := b.Sync(ctx, table, []desired.Change{c}); err != nil {
		t.Fatal(err)
	}
	for _, other := range all[1:] {
		if err := other.Cleanup(ctx); err != nil {
			t.Errorf("clean up the other variant: %v", err)
		}
	}
	if got := ask("10.96.0.10:80"); got != "ours" {
		t.Errorf("after ours has written, rules lead to %s", got)
	}
	if !b.Check(ctx) {
		t.Error("the tables are whole, but Check says they are not")
	}
	if err := b.Cleanup(ctx); err != nil {
		t.Fatal(err)
	}
	for _, one := range all {
		for _, name := range tables {
			out, err := run(ctx, "", one.families[0].save, "-t", name)
			for _, word := range []string{"KUBE-SERVICES", "KUBE-SVC", "KUBE-SEP", "KUBE-PROXY", "KUBE-NODEPORTS"} {
				if err != nil || strings.Contains(out, word) {
					t.Errorf("%s is left behind in %s: %v\n%s", word, name, err, out)
				}
			}
			if name == "filter" && (!strings.Contains(out, "-j THEIRS") || !strings.Contains(out, "-j KUBE-FIREWALL")) {
				t.Errorf("others' rules have gone:\n%s", out)
			}
		}
	}
}

func TestAffinityEnds(t *testing.T) {
	netlab.Alone(t, "10.244.0.5/32")
	b, err := New()
	if err != nil {
		t.Fatal(err)
	}
	p, follow := netlab.Sticky(t)
	table := &desired.Table{Policy: desired.Policy{MasqueradeBit: 14}}
	c, _ := table.Set(p.Name, []desired.Port{p})
	if _, err := b.Sync(context.Background(), table, []desired.Change{c}); err != nil {
		t.Fatal(err)
	}
	follow(ask)
}
