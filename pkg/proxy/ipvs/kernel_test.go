package ipvs

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sextant-k8s/sextant/pkg/proxy/desired"
	"github.com/sextant-k8s/sextant/pkg/proxy/netlab"
	"github.com/sextant-k8s/sextant/pkg/proxy/nftables"
)

const longest = 3 * time.Second

func ask(address string) string { return netlab.Who("tcp", address, longest) }

// On a kernel without IPVS the mode is refused by its name; on one that has it (hack/vm boots one), packets are real.
func TestKernel(t *testing.T) {
	netlab.Alone(t, "10.244.0.5/32", "10.244.0.6/32", "fd00:244::5/128")
	b, err := New(Config{})
	if err != nil {
		if !strings.Contains(err.Error(), "no IPVS") || !strings.Contains(err.Error(), "--proxy-mode") {
			t.Errorf("refused with %v", err)
		}
		return
	}
	t.Log("this kernel has IPVS")
	netlab.Answer(t, "tcp", "10.244.0.5:8080", "10.244.0.5:8080")
	netlab.Answer(t, "tcp", "10.244.0.6:8080", "10.244.0.6:8080")
	netlab.Answer(t, "tcp", "[fd00:244::5]:8080", "[fd00:244::5]:8080")
	ctx := context.Background()
	table := &desired.Table{Policy: desired.Policy{MasqueradeBit: 14, NodePortsAll: true}}
	sync := func(ips ...string) {
		t.Helper()
		var changes []desired.Change
		put := func(p desired.Port, ips ...string) {
			for _, ip := range ips {
				p.Any = append(p.Any, desired.Endpoint{At: netip.AddrPortFrom(netip.MustParseAddr(ip), 8080), Local: true})
			}
			p.Inner, p.Outer, p.Protocol, p.Number = p.Any, p.Any, "tcp", 80
			if c, changed := table.Set(p.Name, []desired.Port{p}); changed {
				changes = append(changes, c)
			}
		}
		put(desired.Port{Name: "x/web", ClusterIP: netip.MustParseAddr("10.96.0.10"), NodePort: 30080}, ips...)
		put(desired.Port{Name: "x/sticky", ClusterIP: netip.MustParseAddr("10.96.0.11"), Sticky: 100}, ips...)
		put(desired.Port{Name: "x/six", ClusterIP: netip.MustParseAddr("fd00:96::10")}, "fd00:244::5")
		if _, err := b.Sync(ctx, table, changes); err != nil {
			t.Fatal(err)
		}
		if !b.Check(ctx) {
			t.Error("the tables are whole, but Check says they are not")
		}
	}
	sync("10.244.0.5", "10.244.0.6")
	seen := map[string]int{}
	for range 40 {
		seen[ask("10.96.0.10:80")]++
	}
	if seen["10.244.0.5:8080"] != 20 || seen["10.244.0.6:8080"] != 20 {
		t.Errorf("40 requests were answered by %v; want 20 by each", seen)
	}
	first := ask("10.96.0.11:80")
	for range 10 {
		if got := ask("10.96.0.11:80"); got != first || !strings.HasSuffix(got, ":8080") {
			t.Errorf("a sticky client went from %s to %s", first, got)
		}
	}
	if got := ask("192.0.2.10:30080"); !strings.HasSuffix(got, ":8080") {
		t.Errorf("the node port: %s", got)
	}
	if got := ask("[fd00:96::10]:80"); got != "[fd00:244::5]:8080" {
		t.Errorf("over IPv6: %s", got)
	}
	if got := ask("10.96.0.10:81"); got != netlab.Refused {
		t.Errorf("a port that no service has: %s; want refused", got)
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
	// A new proxy takes over, with what is drained, and mends what others broke.
	if b, err = New(Config{}); err != nil {
		t.Fatal(err)
	}
	sync("10.244.0.5")
	if got := ask("10.96.0.10:80"); got != "10.244.0.5:8080" {
		t.Errorf("after a restart: %s", got)
	}
	if err := b.handle.Flush(); err != nil {
		t.Fatal(err)
	}
	if b.Check(ctx) {
		t.Error("all was flushed, and Check did not see it")
	}
	sync("10.244.0.5")
	if got := ask("10.96.0.10:80"); got != "10.244.0.5:8080" {
		t.Errorf("a sync did not mend it: %s", got)
	}

	many(t, b, table)
	if err := b.Cleanup(ctx); err != nil {
		t.Fatal(err)
	}
	if left, err := b.handle.GetServices(); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
	if _, err := net.InterfaceByName(device); err == nil {
		t.Errorf("%s is left behind", device)
	}
	if r, err := netlink.RouteGet(net.ParseIP("10.96.0.10")); err == nil && r[0].Type == unix.RTN_LOCAL {
		t.Errorf("an address is left behind: %v", r)
	}
}

// many tells what ten thousand services of three endpoints cost, and one that changes then, beside nftables in the same guest.
func many(t *testing.T, b *Backend, table *desired.Table) {
	t.Helper()
	beside, err := nftables.New()
	if err != nil {
		t.Fatal(err)
	}
	const services = 10_000
	port := func(i, last int) []desired.Port {
		to := []desired.Endpoint{{At: netip.MustParseAddrPort("10.244.0.5:8080")}, {At: netip.MustParseAddrPort("10.244.0.6:8080")}, {At: netip.MustParseAddrPort(fmt.Sprintf("10.244.0.%d:8080", last))}}
		return []desired.Port{{Name: fmt.Sprintf("y/%d", i), Protocol: "tcp", Number: 80, ClusterIP: netip.AddrFrom4([4]byte{10, 97, byte(i / 250), byte(1 + i%250)}), Any: to, Inner: to, Outer: to}}
	}
	var changes []desired.Change
	for i := range services {
		c, _ := table.Set(fmt.Sprintf("y/%d", i), port(i, 7))
		changes = append(changes, c)
	}
	for _, one := range []struct {
		name string
		sync func(context.Context, *desired.Table, []desired.Change) (desired.Written, error)
	}{{"ipvs", b.Sync}, {"nftables", beside.Sync}} {
		t.Logf("%s: the first sync begins", one.name)
		began := time.Now()
		if _, err := one.sync(t.Context(), table, changes); err != nil {
			t.Fatal(err)
		}
		first := time.Since(began)
		t.Logf("%s: the first sync ends", one.name)
		const moves = 10
		began = time.Now()
		for i := range moves {
			c, _ := table.Set("y/5000", port(5000, 8+i))
			if _, err := one.sync(t.Context(), table, []desired.Change{c}); err != nil {
				t.Fatal(err)
			}
		}
		t.Logf("%s: %d services in %v, one endpoint changed in %v", one.name, services, first, time.Since(began)/moves)
		table.Set("y/5000", port(5000, 7))
	}
	if err := beside.Cleanup(t.Context()); err != nil {
		t.Fatal(err)
	}
}
