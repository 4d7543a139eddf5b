package proxy

import (
	"net"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/sextant-k8s/sextant/pkg/proxy/desired"
)

func TestStaleFlows(t *testing.T) {
	ports := func(ips ...string) []desired.Port {
		p := desired.Port{Name: "x/dns", Protocol: "udp", ClusterIP: netip.MustParseAddr("10.96.0.10"), Number: 53, NodePort: 30053}
		for _, ip := range ips {
			p.Any = append(p.Any, desired.Endpoint{At: netip.AddrPortFrom(netip.MustParseAddr(ip), 53)})
		}
		return []desired.Port{p}
	}
	flow := func(to string, port uint16, end string, protocol uint8) *netlink.ConntrackFlow {
		f := &netlink.ConntrackFlow{}
		f.Forward.DstIP, f.Forward.DstPort, f.Forward.Protocol = net.ParseIP(to), port, protocol
		f.Reverse.SrcIP = net.ParseIP(end)
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
