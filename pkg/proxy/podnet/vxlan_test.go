package podnet

import (
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	v1 "k8s.io/api/core/v1"

	"github.com/sextant-k8s/sextant/pkg/proxy/netlab"
)

func dual(name, pods4, pods6, ip string) *Node {
	n := &v1.Node{}
	n.Name, n.Spec.PodCIDRs = name, []string{pods4, pods6}
	n.Status.Addresses = []v1.NodeAddress{{Type: v1.NodeInternalIP, Address: ip}}
	return NewNode(n)
}

// Two nodes that share no link but through a router reach each other's pods through tunnels, in both families.
func TestTunnels(t *testing.T) {
	a, b, router := netlab.New(t), netlab.New(t), netlab.New(t)
	router.Forward()
	nodes := []*Node{dual("a", "10.244.0.0/24", "fd00:244::/64", "192.0.2.10"), dual("b", "10.244.1.0/24", "fd00:244:0:1::/64", "198.51.100.10")}
	networks := map[string]*Network{"a": {Node: "a", Mode: VXLAN, ConfDir: t.TempDir()}, "b": {Node: "b", Mode: VXLAN, ConfDir: t.TempDir()}}
	for i, n := range []struct {
		space         *netlab.Space
		address, gate string
	}{{a, "192.0.2.10", "192.0.2.1"}, {b, "198.51.100.10", "198.51.100.1"}} {
		link := "r" + string(rune('0'+i))
		router.Join(link, n.space, "eth0")
		router.Address(link, n.gate+"/24")
		n.space.Address("eth0", n.address+"/24")
		n.space.Route("default", n.gate, "")
	}
	for i, s := range []*netlab.Space{a, b} {
		s.Enter()
		for _, pods := range nodes[i].Pods {
			s.Address("lo", netip.PrefixFrom(pods.Addr().Next(), pods.Addr().BitLen()).String())
		}
		if _, err := networks[nodes[i].Name].Sync(nodes, false); err != nil {
			t.Fatal(err)
		}
	}
	b.Enter()
	inside := []string{"10.244.1.1", "fd00:244:0:1::1"}
	for _, at := range inside {
		netlab.Answer(t, "tcp", net.JoinHostPort(at, "80"), at)
	}
	a.Enter()
	reach := func(at string) string { return netlab.Who("tcp", net.JoinHostPort(at, "80"), 2*time.Second) }
	for _, at := range inside {
		if got := reach(at); got != at {
			t.Errorf("%s: %s\n%s", at, got, netlab.Sh(t, "bridge fdb show dev "+device)+netlab.Sh(t, "ip neigh")+netlab.Sh(t, "ip route"))
		}
	}
	link, err := netlink.LinkByName(device)
	if err != nil || link.Attrs().MTU != 1450 {
		t.Errorf("the device: %v, %+v", err, link)
	}
	// Twice is once; what others removed comes back; a node that leaves is forgotten; another mode leaves no device.
	n := networks["a"]
	sync := func(nodes ...*Node) {
		t.Helper()
		if _, err := n.Sync(nodes, true); err != nil {
			t.Fatal(err)
		}
	}
	netlab.Sh(t, "bridge fdb del "+mac(nodes[1].Addresses[0]).String()+" dev "+device+" dst 198.51.100.10 self")
	netlab.Sh(t, "ip route del 10.244.1.0/24")
	sync(nodes...)
	if got := reach("10.244.1.1"); got != "10.244.1.1" {
		t.Errorf("after it was broken: %s", got)
	}
	sync(nodes[0])
	if out := netlab.Sh(t, "bridge fdb show dev "+device) + netlab.Sh(t, "ip route") + netlab.Sh(t, "ip -6 route") + netlab.Sh(t, "ip neigh show dev "+device); strings.Contains(out, "198.51.100.10") ||
		strings.Contains(out, "10.244.1") || strings.Contains(out, "fd00:244:0:1:") {
		t.Errorf("the node that left is not forgotten:\n%s", out)
	}
	sync(nodes...)
	n.Mode = HostGateway
	sync(nodes[0])
	if _, err := netlink.LinkByName(device); err == nil {
		t.Error("the device is left behind")
	}
}
