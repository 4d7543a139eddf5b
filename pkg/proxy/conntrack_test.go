package proxy

import (
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/sextant-k8s/sextant/pkg/proxy/desired"
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
	flow := func(to string, port uint16, end string, protocol uint8) *netlink.ConntrackFlow {
		f := &netlink.ConntrackFlow{}
		f.Forward.DstIP, f.Forward.DstPort, f.Forward.Protocol = net.ParseIP(to), port, protocol
		f.Reverse.SrcIP, f.Reverse.SrcPort = net.ParseIP(end), 53
		return f
	}
	const udp, tcp = 17, 6
	for _, c := range []struct {
		what          string
		before, after []desired.Port
		flow          *netlink.ConntrackFlow
		want          bool
	}{
		{"its endpoint went", ports("10.244.0.5", "10.244.0.6"), ports("10.244.0.6"), flow("10.96.0.10", 53, "10.244.0.5", udp), true},
		{"its endpoint went, by node port", ports("10.244.0.5", "10.244.0.6"), ports("10.244.0.6"), flow("192.0.2.1", 30053, "10.244.0.5", udp), true},
		{"its endpoint stays", ports("10.244.0.5", "10.244.0.6"), ports("10.244.0.6"), flow("10.96.0.10", 53, "10.244.0.6", udp), false},
		{"its endpoint went, another port of it stays", ports("10.244.0.5", "10.244.0.5:54"), ports("10.244.0.5:54"), flow("10.96.0.10", 53, "10.244.0.5", udp), true},
		{"another port of its endpoint went", ports("10.244.0.5", "10.244.0.5:54"), ports("10.244.0.5"), flow("10.96.0.10", 53, "10.244.0.5", udp), false},
		{"the service went", ports("10.244.0.5"), nil, flow("10.96.0.10", 53, "10.244.0.5", udp), true},
		{"the service had none", ports(), ports("10.244.0.6"), flow("10.96.0.10", 53, "10.96.0.10", udp), true},
		{"nothing changed", ports("10.244.0.6"), ports("10.244.0.6"), flow("10.96.0.10", 53, "10.244.0.6", udp), false},
		{"TCP ends by itself", ports("10.244.0.5"), ports(), flow("10.96.0.10", 53, "10.244.0.5", tcp), false},
		{"another port", ports("10.244.0.5"), ports(), flow("10.96.0.10", 54, "10.244.0.5", udp), false},
	} {
		if got := staleFlows([]desired.Change{{Before: c.before, After: c.after}}).MatchConntrackFlow(c.flow); got != c.want {
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
		f := &netlink.ConntrackFlow{}
		state := &netlink.ProtoInfoTCP{State: 1}
		if c.protocol == connected {
			c.protocol, state.State = 6, established
		}
		f.ProtoInfo = state
		f.Forward.DstIP, f.Forward.DstPort, f.Forward.Protocol = at(c.to).Addr().AsSlice(), at(c.to).Port(), c.protocol
		f.Reverse.SrcIP, f.Reverse.SrcPort = at(c.end).Addr().AsSlice(), at(c.end).Port()
		if got := strayFlows(table, false).MatchConntrackFlow(f); got != c.want {
			t.Errorf("%s: forgotten is %v, want %v", c.what, got, c.want)
		}
	}
}
