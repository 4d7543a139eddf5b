package nftables

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sextant-k8s/sextant/pkg/proxy/desired"
	"github.com/sextant-k8s/sextant/pkg/proxy/netlab"
)

// patience is longer than a SYN's repetition: over IPv6 the first refusal finds the socket still busy with connecting.
const patience = 1500 * time.Millisecond

func ask(address string) string { return netlab.Who("tcp", address, patience) }

func alone(t *testing.T) {
	t.Helper()
	netlab.Alone(t, "10.244.0.5/32", "10.244.0.6/32", "fd00:244::5/128", "fd00:244::6/128")
}

// world is one family's addresses in the test's namespace.
type world struct {
	one, two, service, sticky, local, outside, node string
}

var worlds = []world{
	{"10.244.0.5", "10.244.0.6", "10.96.0.10", "10.96.0.11", "10.96.0.12", "203.0.113.9", "192.0.2.10"},
	{"fd00:244::5", "fd00:244::6", "fd00:96::10", "fd00:96::11", "fd00:96::12", "2001:db8:9::9", "2001:db8::10"},
}

func policy() desired.Policy {
	pods := [2]netip.Prefix{netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("fd00:244::/48")}
	return desired.Policy{Pods: pods, NodePods: [2]netip.Prefix{netip.MustParsePrefix("10.244.0.0/24"), netip.MustParsePrefix("fd00:244::/64")},
		Inside: pods, MasqueradeBit: 14, NodePortsAll: true}
}

func TestKernel(t *testing.T) {
	for _, w := range worlds {
		t.Run(w.node, func(t *testing.T) { serve(t, w) })
	}
}

func serve(t *testing.T, w world) {
	alone(t)
	ctx := context.Background()
	at := func(ip string, port int) string { return net.JoinHostPort(ip, fmt.Sprint(port)) }
	b, err := New()
	if err != nil {
		t.Fatal(err)
	}
	netlab.Answer(t, "tcp", at(w.one, 8080), at(w.one, 8080))
	netlab.Answer(t, "tcp", at(w.two, 8080), at(w.two, 8080))
	table := &desired.Table{Policy: policy()}
	sync := func(ips ...string) {
		t.Helper()
		p := desired.Port{Name: "x/web", Protocol: "tcp", ClusterIP: netip.MustParseAddr(w.service), Number: 80, NodePort: 30080}
		for _, ip := range ips {
			p.Any = append(p.Any, desired.Endpoint{At: netip.AddrPortFrom(netip.MustParseAddr(ip), 8080), Local: true})
		}
		p.Inner, p.Outer = p.Any, p.Any
		q := p
		q.Name, q.ClusterIP, q.NodePort, q.Sticky = "x/sticky", netip.MustParseAddr(w.sticky), 30081, 100
		r := p
		r.Name, r.ClusterIP, r.NodePort, r.OuterLocal = "x/local", netip.MustParseAddr(w.local), 30082, true
		r.Balancers, r.Guarded, r.Ranges = []netip.Addr{netip.MustParseAddr(w.outside)}, true, []netip.Prefix{netip.PrefixFrom(netip.MustParseAddr(w.node), 20).Masked()}
		r.Outer = r.Any[:len(r.Any)/2]
		var changes []desired.Change
		for _, ports := range [][]desired.Port{{p}, {q}, {r}} {
			if c, changed := table.Set(ports[0].Name, ports); changed {
				changes = append(changes, c)
			}
		}
		if _, err := b.Sync(ctx, table, changes); err != nil {
			t.Fatal(err)
		}
		if !b.Check(ctx) {
			t.Error("the table is whole, but Check says it is not")
		}
		b.gen = 0
		if !b.Check(ctx) {
			t.Errorf("the table is whole, but it does not count so\n%s", netlab.Sh(t, "nft list ruleset"))
		}
	}

	sync(w.one, w.two)
	seen := map[string]int{}
	for range 40 {
		seen[ask(at(w.service, 80))]++
	}
	if seen[at(w.one, 8080)] < 5 || seen[at(w.two, 8080)] < 5 {
		t.Fatalf("40 requests were answered by %v; want both endpoints\n%s", seen, netlab.Sh(t, "nft list ruleset"))
	}
	first := ask(at(w.sticky, 80))
	for range 10 {
		if got := ask(at(w.sticky, 80)); got != first || !strings.HasSuffix(got, ":8080") {
			t.Errorf("a sticky client went from %s to %s", first, got)
		}
	}
	byNode := ask(at(w.node, 30081))
	for range 10 {
		if got := ask(at(w.node, 30081)); got != byNode {
			t.Errorf("a sticky client of the node port went from %s to %s", byNode, got)
		}
	}
	for _, port := range []int{30080, 30081, 30082} {
		if got := ask(at(w.node, port)); !strings.HasSuffix(got, ":8080") {
			t.Errorf("node port %d: %s", port, got)
		}
	}
	if got := ask(at(w.outside, 80)); !strings.HasSuffix(got, ":8080") {
		t.Errorf("the balancer's address: %s", got)
	}
	if got := ask(at(w.service, 81)); got != netlab.Refused {
		t.Errorf("a port that no service has: %s; want refused", got)
	}

	readable(t)

	// What somebody does to the table right before or beside a write is seen by the next look, though the write finds nothing amiss.
	sync(w.one)
	if b.gen == 0 {
		t.Error("a write by nobody but us has the next look count all")
	}
	family := "ip"
	if strings.Contains(w.one, ":") {
		family = "ip6"
	}
	netlab.Sh(t, "nft add rule "+family+" kube-proxy post counter")
	p := desired.Port{Name: "x/more", Protocol: "tcp", ClusterIP: netip.MustParseAddr(w.service), Number: 8099}
	change, _ := table.Set(p.Name, []desired.Port{p})
	if _, err := b.Sync(ctx, table, []desired.Change{change}); err != nil {
		t.Fatal(err)
	}
	if b.Check(ctx) {
		t.Error("a rule of somebody else's in our table was not seen")
	}
	sync(w.one, w.two)
	change, _ = table.Set(p.Name, nil)
	if _, err := b.Sync(ctx, table, []desired.Change{change}); err != nil || !b.Check(ctx) {
		t.Errorf("the table is not mended: %v", err)
	}

	// A sticky client of an endpoint that goes is sent to another, and stays there.
	left := w.one
	if first == at(w.one, 8080) {
		left = w.two
	}
	sync(left)
	for range 10 {
		for _, ip := range []string{w.service, w.sticky} {
			if got := ask(at(ip, 80)); got != at(left, 8080) {
				t.Errorf("after the other endpoint went: %s", got)
			}
		}
	}
	sync(w.one, w.two)
	for range 10 {
		if got := ask(at(w.sticky, 80)); got != at(left, 8080) {
			t.Errorf("a sticky client left %s for %s", left, got)
		}
	}
	sync()
	if got := ask(at(w.service, 80)); got != netlab.Refused {
		t.Errorf("a service without endpoints: %s; want refused", got)
	}
	if got := ask(at(w.node, 30080)); got != netlab.Refused {
		t.Errorf("its node port: %s; want refused", got)
	}

	// A new proxy takes over what the old one left, with its clients, and mends what others broke.
	sync(w.one, w.two)
	first = ask(at(w.sticky, 80))
	if b, err = New(); err != nil {
		t.Fatal(err)
	}
	sync(w.one, w.two)
	for range 10 {
		if got := ask(at(w.sticky, 80)); got != first {
			t.Errorf("across a restart a sticky client went from %s to %s", first, got)
		}
	}
	ip := "ip"
	if strings.Contains(w.node, ":") {
		ip = "ip6"
	}
	netlab.Sh(t, "nft flush map "+ip+" "+tableName+" endpoints")
	if b.Check(ctx) {
		t.Error("the endpoints were flushed, and Check did not see it")
	}
	sync(w.one)
	if got := ask(at(w.service, 80)); got != at(w.one, 8080) {
		t.Errorf("a sync did not mend the endpoints: %s", got)
	}
	netlab.Sh(t, "nft add table inet theirs")
	if err := b.Cleanup(ctx); err != nil {
		t.Fatal(err)
	}
	if out := netlab.Sh(t, "nft list tables"); strings.Contains(out, tableName) || !strings.Contains(out, "theirs") {
		t.Errorf("after the cleanup there are %s", out)
	}
}

// readable asks whether nft lists and reads all of the table.
func readable(t *testing.T) {
	t.Helper()
	// nft 1.0.6 keeps four words for the key of an update while it reads, which an address of IPv6 fills alone.
	list := netlab.Readable(t, func(line string) bool { return strings.Contains(line, "update @") && strings.Contains(line, "ip6") })
	for _, want := range []string{"map nodeport-affinity", "update @affinity", "map @endpoints", "numgen random mod 2"} {
		if !strings.Contains(list, want) {
			t.Errorf("nft does not list %q:\n%s", want, list)
		}
	}
}

func TestGuardedBalancerRefusesOthers(t *testing.T) {
	alone(t)
	b, err := New()
	if err != nil {
		t.Fatal(err)
	}
	netlab.Answer(t, "tcp", "10.244.0.5:8080", "10.244.0.5:8080")
	to := []desired.Endpoint{{At: netip.MustParseAddrPort("10.244.0.5:8080"), Local: true}}
	table := &desired.Table{Policy: policy()}
	for allowed, want := range map[string]string{"198.51.100.0/24": netlab.Silence, "192.0.2.0/24": "10.244.0.5:8080"} {
		table.Set("x/lb", []desired.Port{{Name: "x/lb", Protocol: "tcp", ClusterIP: netip.MustParseAddr("10.96.0.1"), Number: 80, Inner: to, Outer: to, Any: to,
			Balancers: []netip.Addr{netip.MustParseAddr("203.0.113.9")}, Guarded: true, Ranges: []netip.Prefix{netip.MustParsePrefix(allowed)}}})
		b.families[0].fresh = false
		if _, err := b.Sync(context.Background(), table, nil); err != nil {
			t.Fatal(err)
		}
		if got := ask("203.0.113.9:80"); !strings.Contains(got, want) {
			t.Errorf("%s allowed: %s, want %s", allowed, got, want)
		}
	}
}

// upstreams is the table of upstream's proxy with one endpoint, in short.
const upstreams = `table ip kube-proxy {
	map service-ips {
		type ipv4_addr . inet_proto . inet_service : verdict
		elements = { 10.96.0.10 . tcp . 80 : goto service-AAAAAAAA-x/web/tcp/ }
	}
	chain services {
		ip daddr . meta l4proto . th dport vmap @service-ips
	}
	chain nat-output {
		type nat hook output priority -100; policy accept;
		jump services
	}
	chain service-AAAAAAAA-x/web/tcp/ {
		numgen random mod 1 vmap { 0 : goto endpoint-AAAAAAAA-x/web/tcp/__10.244.0.5/8080 }
	}
	chain endpoint-AAAAAAAA-x/web/tcp/__10.244.0.5/8080 {
		meta l4proto tcp dnat to 10.244.0.5:8080
	}
}
`

// What upstream's proxy left serves until ours has written; nobody is refused meanwhile, and nothing of it stays.
func TestUpstreamsTableIsTakenOver(t *testing.T) {
	space := netlab.Alone(t, "10.244.0.5/32", "10.244.0.6/32")
	netlab.Answer(t, "tcp", "10.244.0.5:8080", "upstream's")
	netlab.Answer(t, "tcp", "10.244.0.6:8080", "ours")
	path := filepath.Join(t.TempDir(), "ruleset")
	if err := os.WriteFile(path, []byte(upstreams), 0o600); err != nil {
		t.Fatal(err)
	}
	netlab.Sh(t, "nft -f "+path)
	if got := ask("10.96.0.10:80"); got != "upstream's" {
		t.Fatalf("upstream's rules lead to %s", got)
	}
	b, err := New()
	if err != nil {
		t.Fatal(err)
	}
	stop, done := make(chan struct{}), make(chan string)
	go space.Do(func() {
		for seen := ""; ; {
			select {
			case <-stop:
				done <- seen
				return
			default:
				if got := ask("10.96.0.10:80"); got != "upstream's" && got != "ours" {
					seen += " " + got
				}
			}
		}
	})
	to := []desired.Endpoint{{At: netip.MustParseAddrPort("10.244.0.6:8080")}}
	table := &desired.Table{Policy: policy()}
	c, _ := table.Set("x/web", []desired.Port{{Name: "x/web", Protocol: "tcp", ClusterIP: netip.MustParseAddr("10.96.0.10"), Number: 80, Inner: to, Outer: to, Any: to}})
	if _, err := b.Sync(context.Background(), table, []desired.Change{c}); err != nil {
		t.Fatal(err)
	}
	if got := ask("10.96.0.10:80"); got != "ours" {
		t.Errorf("after ours has written, rules lead to %s", got)
	}
	close(stop)
	if seen := <-done; seen != "" {
		t.Errorf("while one table went and the other came, callers got%s", seen)
	}
	if out := netlab.Sh(t, "nft list ruleset"); strings.Contains(out, "service-AAAAAAAA") {
		t.Errorf("upstream's is left behind:\n%s", out)
	}
}

func TestAffinityEnds(t *testing.T) {
	alone(t)
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
