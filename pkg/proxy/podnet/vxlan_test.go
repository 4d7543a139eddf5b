package podnet

import (
	"net"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	v1 "k8s.io/api/core/v1"
)

func sh(t *testing.T, line string) string {
	t.Helper()
	words := strings.Fields(line)
	out, err := exec.Command(words[0], words[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", line, err, out)
	}
	return string(out)
}

func dual(name, pods4, pods6, ip string) *Node {
	n := &v1.Node{}
	n.Name, n.Spec.PodCIDRs = name, []string{pods4, pods6}
	n.Status.Addresses = []v1.NodeAddress{{Type: v1.NodeInternalIP, Address: ip}}
	return NewNode(n)
}

// Two nodes that share no link but through a router reach each other's pods through tunnels, in both families.
func TestTunnels(t *testing.T) {
	runtime.LockOSThread() // the thread is thrown away with its namespaces
	space := func() netns.NsHandle {
		ns, err := netns.New()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = ns.Close() })
		sh(t, "ip link set lo up")
		return ns
	}
	a, b := space(), space()
	nodes := []*Node{dual("a", "10.244.0.0/24", "fd00:244::/64", "192.0.2.10"), dual("b", "10.244.1.0/24", "fd00:244:0:1::/64", "198.51.100.10")}
	networks := map[string]*Network{"a": {Node: "a", Mode: VXLAN, ConfDir: t.TempDir()}, "b": {Node: "b", Mode: VXLAN, ConfDir: t.TempDir()}}
	in := func(ns netns.NsHandle) {
		t.Helper()
		if err := netns.Set(ns); err != nil {
			t.Fatal(err)
		}
	}
	router := space()
	for i, n := range []struct {
		ns            netns.NsHandle
		address, gate string
	}{{a, "192.0.2.10", "192.0.2.1"}, {b, "198.51.100.10", "198.51.100.1"}} {
		in(router)
		link := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "r" + string(rune('0'+i))}, PeerName: "eth0", PeerNamespace: netlink.NsFd(n.ns)}
		if err := netlink.LinkAdd(link); err != nil {
			t.Fatal(err)
		}
		sh(t, "ip addr add "+n.gate+"/24 dev "+link.Name)
		sh(t, "ip link set "+link.Name+" up")
		sh(t, "sysctl -qw net.ipv4.ip_forward=1")
		in(n.ns)
		sh(t, "ip addr add "+n.address+"/24 dev eth0")
		sh(t, "ip link set eth0 up")
		sh(t, "ip route add default via "+n.gate)
	}
	for i, ns := range []netns.NsHandle{a, b} {
		in(ns)
		for _, pods := range nodes[i].Pods {
			sh(t, "ip addr add "+pods.Addr().Next().String()+" dev lo nodad")
		}
		if _, err := networks[nodes[i].Name].Sync(nodes, false); err != nil {
			t.Fatal(err)
		}
	}
	in(b)
	listeners := map[string]net.Listener{}
	for _, at := range []string{"10.244.1.1", "fd00:244:0:1::1"} {
		l, err := net.Listen("tcp", net.JoinHostPort(at, "80"))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close() //nolint:errcheck // the namespace ends
		listeners[at] = l
	}
	in(a)
	reach := func(at string) error {
		c, err := net.DialTimeout("tcp", net.JoinHostPort(at, "80"), 2*time.Second)
		if err == nil {
			_ = c.Close()
		}
		return err
	}
	for at := range listeners {
		if err := reach(at); err != nil {
			t.Errorf("%s: %v\n%s", at, err, sh(t, "bridge fdb show dev "+device)+sh(t, "ip neigh")+sh(t, "ip route"))
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
	sh(t, "bridge fdb del "+mac(nodes[1].Addresses[0]).String()+" dev "+device+" dst 198.51.100.10 self")
	sh(t, "ip route del 10.244.1.0/24")
	sync(nodes...)
	if err := reach("10.244.1.1"); err != nil {
		t.Errorf("after it was broken: %v", err)
	}
	sync(nodes[0])
	if out := sh(t, "bridge fdb show dev "+device) + sh(t, "ip route") + sh(t, "ip -6 route") + sh(t, "ip neigh show dev "+device); strings.Contains(out, "198.51.100.10") ||
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
