package podnet

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	v1 "k8s.io/api/core/v1"

	"github.com/sextant-k8s/sextant/pkg/proxy/netlab"
)

func node(name, pods, ip string) *Node {
	n := &v1.Node{}
	n.Name, n.Spec.PodCIDR = name, pods
	if ip != "" {
		n.Status.Addresses = []v1.NodeAddress{{Type: v1.NodeHostName, Address: name}, {Type: v1.NodeInternalIP, Address: ip}}
	}
	return NewNode(n)
}

func TestDecide(t *testing.T) {
	got := decide("a", HostGateway, []*Node{node("c", "10.244.2.0/24", "192.0.2.12"), node("a", "10.244.0.0/24", "192.0.2.10"), node("b", "10.244.1.0/24", "192.0.2.11"),
		node("young", "", "192.0.2.13"), node("nowhere", "10.244.4.0/24", "")}).String()
	want := "pods 10.244.0.0/24\n10.244.1.0/24 via 192.0.2.11 (b)\n10.244.2.0/24 via 192.0.2.12 (c)\n"
	if got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func TestConfIsOnlyOurs(t *testing.T) {
	n := &Network{Node: "a", ConfDir: filepath.Join(t.TempDir(), "net.d")}
	path := filepath.Join(n.ConfDir, fileName)
	for _, pods := range []string{"10.244.0.0/24", "10.244.7.0/24"} {
		if err := n.writeConf([2]netip.Prefix{netip.MustParsePrefix(pods)}, 0); err != nil {
			t.Fatal(err)
		}
		if text, err := os.ReadFile(path); err != nil || !strings.Contains(string(text), pods) {
			t.Errorf("%v: want %s in\n%s", err, pods, text)
		}
	}
	if err := os.WriteFile(path, []byte(`{"name":"theirs"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := n.writeConf([2]netip.Prefix{netip.MustParsePrefix("10.244.0.0/24")}, 0); err == nil {
		t.Error("somebody else's file was written over")
	}
	if left, err := os.ReadDir(n.ConfDir); err != nil || len(left) != 1 {
		t.Errorf("left in the directory: %v %v", left, err)
	}
}

func TestRoutes(t *testing.T) {
	netlab.Alone(t)
	n := &Network{Node: "a", ConfDir: t.TempDir()}
	check := func(want ...string) {
		t.Helper()
		held, err := netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Protocol: protocol}, netlink.RT_FILTER_PROTOCOL)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, r := range held {
			got = append(got, r.Dst.String()+" via "+r.Gw.String())
		}
		if strings.Join(got, ", ") != strings.Join(want, ", ") {
			t.Errorf("routes are %v, want %v", got, want)
		}
	}
	sync := func(nodes ...*Node) {
		t.Helper()
		if _, err := n.Sync(nodes, false); err != nil {
			t.Fatal(err)
		}
	}
	a, b := node("a", "10.244.0.0/24", "192.0.2.10"), node("b", "10.244.1.0/24", "192.0.2.11")
	sync(a, b)
	check("10.244.1.0/24 via 192.0.2.11")
	sync(a, node("b", "10.244.1.0/24", "192.0.2.99"))
	check("10.244.1.0/24 via 192.0.2.99")
	if _, err := n.Sync([]*Node{a, node("far", "10.244.3.0/24", "203.0.113.9")}, false); err == nil {
		t.Error("a node off the link was accepted")
	}
	check()
	sync(a, b)
	if err := n.Cleanup(); err != nil {
		t.Fatal(err)
	}
	check()
}
