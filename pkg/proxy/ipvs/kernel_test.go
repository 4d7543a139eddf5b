package ipvs

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netns"

	"github.com/sextant-k8s/sextant/pkg/proxy/desired"
)

func must(t *testing.T, line string) string {
	t.Helper()
	words := strings.Fields(line)
	out, err := exec.Command(words[0], words[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", line, err, out)
	}
	return string(out)
}

// answerer listens on an endpoint and says who it is. The socket is made on the test's thread, so in its namespace.
func answerer(t *testing.T, address string) {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			fmt.Fprint(c, address)
			_ = c.Close()
		}
	}()
}

func ask(address string) string {
	c, err := net.DialTimeout("tcp", address, 3*time.Second)
	if err != nil {
		return err.Error()
	}
	defer func() { _ = c.Close() }()
	text, _ := io.ReadAll(c)
	return string(text)
}

// On a kernel without IPVS the mode is refused by its name; on one that has it (hack/vm boots one), packets are real.
func TestKernel(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("the kernel's tables are tested as root")
	}
	runtime.LockOSThread() // the thread is thrown away with its namespace
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ns.Close() }()
	b, err := New(Config{})
	if err != nil {
		if !strings.Contains(err.Error(), "no IPVS") || !strings.Contains(err.Error(), "--proxy-mode") {
			t.Errorf("refused with %v", err)
		}
		return
	}
	t.Log("this kernel has IPVS")
	for _, line := range []string{
		"ip link set lo up", "ip addr add 10.244.0.5/32 dev lo", "ip addr add 10.244.0.6/32 dev lo", "ip addr add fd00:244::5/128 dev lo",
		"brctl addbr eth0", "ip addr add 192.0.2.10/24 dev eth0", "ip link set eth0 up", "ip route add default via 192.0.2.1",
	} {
		must(t, line)
	}
	answerer(t, "10.244.0.5:8080")
	answerer(t, "10.244.0.6:8080")
	answerer(t, "[fd00:244::5]:8080")
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
	if got := ask("10.96.0.10:81"); !strings.Contains(got, "refused") {
		t.Errorf("a port that no service has: %s; want refused", got)
	}
	sync("10.244.0.6")
	for range 10 {
		if got := ask("10.96.0.10:80"); got != "10.244.0.6:8080" {
			t.Errorf("after 10.244.0.5 went: %s", got)
		}
	}
	sync()
	if got := ask("10.96.0.10:80"); !strings.Contains(got, "refused") {
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

	// Many services.
	began := time.Now()
	var changes []desired.Change
	const many = 1000
	for i := range many {
		to := []desired.Endpoint{{At: netip.MustParseAddrPort("10.244.0.5:8080")}, {At: netip.MustParseAddrPort("10.244.0.6:8080")}, {At: netip.MustParseAddrPort("10.244.0.7:8080")}}
		c, _ := table.Set(fmt.Sprintf("y/%d", i), []desired.Port{{Name: fmt.Sprintf("y/%d", i), Protocol: "tcp", Number: 80,
			ClusterIP: netip.AddrFrom4([4]byte{10, 97, byte(i / 250), byte(1 + i%250)}), Any: to, Inner: to, Outer: to}})
		changes = append(changes, c)
	}
	if _, err := b.Sync(ctx, table, changes); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d services in %v", many, time.Since(began))
	if err := b.Cleanup(ctx); err != nil {
		t.Fatal(err)
	}
	if left, err := b.handle.GetServices(); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
	if _, err := net.InterfaceByName(device); err == nil {
		t.Errorf("%s is left behind", device)
	}
}
