package proxy

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sextant-k8s/sextant/pkg/proxy/desired"
	"github.com/sextant-k8s/sextant/pkg/proxy/netlab"
)

func TestStaleFlows(t *testing.T) {
	ports := func(ends ...string) []desired.Port {
		p := desired.Port{Name: "x/dns", Protocol: "udp", ClusterIP: netip.MustParseAddr("10.96.0.10"), Number: 53, NodePort: 30053}
		for _, end := range ends {
			if !strings.Contains(end, ":") {
				end += ":53"
			}
			p.Any = append(p.Any, desired.Endpoint{At: netip.MustParseAddrPort(end)})
		}
		return []desired.Port{p}
	}
	talk := func(to string, port uint16, end string) flow {
		return flow{protocol: 17, to: netip.AddrPortFrom(netip.MustParseAddr(to), port), end: netip.AddrPortFrom(netip.MustParseAddr(end), 53)}
	}
	for _, c := range []struct {
		what          string
		before, after []desired.Port
		flow          flow
		want          bool
	}{
		{"its endpoint went", ports("10.244.0.5", "10.244.0.6"), ports("10.244.0.6"), talk("10.96.0.10", 53, "10.244.0.5"), true},
		{"its endpoint went, by node port", ports("10.244.0.5", "10.244.0.6"), ports("10.244.0.6"), talk("192.0.2.1", 30053, "10.244.0.5"), true},
		{"its endpoint stays", ports("10.244.0.5", "10.244.0.6"), ports("10.244.0.6"), talk("10.96.0.10", 53, "10.244.0.6"), false},
		{"its endpoint went, another port of it stays", ports("10.244.0.5", "10.244.0.5:54"), ports("10.244.0.5:54"), talk("10.96.0.10", 53, "10.244.0.5"), true},
		{"another port of its endpoint went", ports("10.244.0.5", "10.244.0.5:54"), ports("10.244.0.5"), talk("10.96.0.10", 53, "10.244.0.5"), false},
		{"the service went", ports("10.244.0.5"), nil, talk("10.96.0.10", 53, "10.244.0.5"), true},
		{"the service had none", ports(), ports("10.244.0.6"), talk("10.96.0.10", 53, "10.96.0.10"), true},
		{"nothing changed", ports("10.244.0.6"), ports("10.244.0.6"), talk("10.96.0.10", 53, "10.244.0.6"), false},
		{"another port", ports("10.244.0.5"), ports(), talk("10.96.0.10", 54, "10.244.0.5"), false},
	} {
		if got := staleFlows([]desired.Change{{Before: c.before, After: c.after}}).matches(c.flow); got != c.want {
			t.Errorf("%s: forgotten is %v, want %v", c.what, got, c.want)
		}
	}
}

// What a proxy that died did not forget, the next one does.
func TestStrayFlows(t *testing.T) {
	const connected = 255
	at := netip.MustParseAddrPort
	table := &desired.Table{}
	to := []desired.Endpoint{{At: at("10.244.0.5:5353")}}
	table.Set("x/dns", []desired.Port{{Name: "x/dns", Protocol: "udp", ClusterIP: netip.MustParseAddr("10.96.0.10"), Number: 53, NodePort: 30053, Any: to, Inner: to, Outer: to}})
	table.Set("x/web", []desired.Port{{Name: "x/web", Protocol: "tcp", ClusterIP: netip.MustParseAddr("10.96.0.12"), Number: 80, Any: to, Inner: to, Outer: to}})
	table.Set("x/none", []desired.Port{{Name: "x/none", Protocol: "udp", ClusterIP: netip.MustParseAddr("10.96.0.11"), Number: 53}})
	for _, c := range []struct {
		what, to, end string
		protocol      uint8
		want          bool
	}{
		{"TCP, connected from before there were rules", "10.96.0.12:80", "10.96.0.12:80", connected, false},
		{"its endpoint stands", "10.96.0.10:53", "10.244.0.5:5353", 17, false},
		{"its endpoint went", "10.96.0.10:53", "10.244.0.9:5353", 17, true},
		{"there was none", "10.96.0.10:53", "10.96.0.10:53", 17, true},
		{"there is none", "10.96.0.11:53", "10.244.0.9:5353", 17, false},
		{"by node port, its endpoint went", "192.0.2.10:30053", "10.244.0.9:5353", 17, true},
		{"by node port, its endpoint stands", "192.0.2.10:30053", "10.244.0.5:5353", 17, false},
		{"somebody else's port of that number", "198.51.100.1:30053", "198.51.100.1:30053", 17, false},
		{"TCP ends by itself", "10.96.0.10:53", "10.244.0.9:5353", 6, false},
		{"TCP from before there were rules", "10.96.0.12:80", "10.96.0.12:80", 6, true},
		{"TCP to an endpoint that leaves", "10.96.0.12:80", "10.244.0.9:5353", 6, false},
		{"not a Service", "198.51.100.1:53", "10.244.0.9:5353", 17, false},
	} {
		f := flow{protocol: c.protocol, to: at(c.to), end: at(c.end), connecting: c.protocol != connected}
		if c.protocol == connected {
			f.protocol = 6
		}
		if got := strayFlows(table, false).matches(f); got != c.want {
			t.Errorf("%s: forgotten is %v, want %v", c.what, got, c.want)
		}
	}
}

// The kernel's own flows: those over UDP to an endpoint that went are deleted, in both families; others, and TCP, stay.
func TestForget(t *testing.T) {
	netlab.Alone(t, "10.244.0.5/32", "10.244.0.6/32", "fd00:244::5/128")
	netlab.Sh(t, "nft add table inet tracked")
	netlab.Sh(t, "nft add chain inet tracked seen { type filter hook output priority 0 ; }")
	netlab.Sh(t, "nft add rule inet tracked seen ct state new accept") // without a rule that asks, the kernel tracks nothing
	count := func() (n map[string]int) {
		n = map[string]int{}
		for _, protocol := range []uint8{unix.IPPROTO_UDP, unix.IPPROTO_TCP} {
			for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
				if err := list(protocol, family, func(f flow, _ []byte) {
					if f.protocol != protocol || f.to != f.end {
						t.Errorf("asked for %d, got %+v", protocol, f)
					}
					if f.to.Port() != 54 {
						n[fmt.Sprint(f.protocol, " ", f.to)]++
					}
				}); err != nil {
					t.Fatal(err)
				}
			}
		}
		return n
	}
	// An address of IPv6 takes its moment.
	for began := time.Now(); netlab.Ask("udp", "[fd00:244::5]:54", 100*time.Millisecond) != netlab.Refused; time.Sleep(10 * time.Millisecond) {
		if time.Since(began) > 10*time.Second {
			t.Fatal("fd00:244::5 is not there")
		}
	}
	for i := range 300 {
		for _, to := range []string{"10.244.0.5:53", "10.244.0.6:53", "[fd00:244::5]:53"} {
			c, err := (&net.Dialer{LocalAddr: &net.UDPAddr{Port: 20000 + i}}).Dial("udp", to)
			if err == nil {
				_, err = c.Write([]byte("who"))
				_ = c.Close()
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	netlab.Answer(t, "tcp", "10.244.0.6:80", "web")
	netlab.Ask("tcp", "10.244.0.6:80", time.Second)
	if n := count(); n["17 10.244.0.5:53"] != 300 || n["17 10.244.0.6:53"] != 300 || n["17 [fd00:244::5]:53"] != 300 || n["6 10.244.0.6:80"] != 0 {
		t.Fatalf("flows: %v", n)
	}
	n, err := forget(unix.IPPROTO_UDP, [2]bool{true, true}, func(f flow) bool { return f.to.Addr() != netip.MustParseAddr("10.244.0.6") && f.to.Port() == 53 })
	if err != nil || n != 600 {
		t.Errorf("forgot %d, %v; want 600", n, err)
	}
	if n := count(); len(n) != 1 || n["17 10.244.0.6:53"] != 300 {
		t.Errorf("left: %v", n)
	}
}
