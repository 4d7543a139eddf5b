package nftables

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/sextant-k8s/sextant/pkg/proxy/desired"
)

// one is a port with endpoints of which clients stay with one for so many seconds.
func one(sticky int32, ips ...string) []desired.Port {
	p := desired.Port{Name: "x/web", Protocol: "tcp", ClusterIP: netip.MustParseAddr("10.96.0.10"), Number: 80, NodePort: 30080, Sticky: sticky}
	for _, ip := range ips {
		p.Any = append(p.Any, desired.Endpoint{At: netip.AddrPortFrom(netip.MustParseAddr(ip), 8080)})
	}
	p.Inner, p.Outer = p.Any, p.Any
	return []desired.Port{p}
}

// While a Service begins or ceases to keep clients, both ways to its endpoints are there; else what goes goes at once.
func TestPartedWhereClientsBeginToStay(t *testing.T) {
	of := func(ports []desired.Port) []element { return elements(desired.Of(ports, false), false).elements }
	two, three := []string{"10.244.0.5", "10.244.0.6"}, []string{"10.244.0.5", "10.244.0.6", "10.244.0.7"}
	for _, c := range []struct {
		before, after []desired.Port
		wait          int // endpoints of the cluster IP and of the node port; where clients stayed, their places, too
	}{
		{one(0, two...), one(100, two...), 4}, {one(100, two...), one(0, three...), 8},
		{one(0, three...), one(0, two...), 0}, {one(100, three...), one(100, two...), 0}, {one(100, two...), one(200, two...), 0},
	} {
		gone, _ := difference(of(c.before), of(c.after))
		now, later := parted(desired.Change{Before: c.before, After: c.after}, gone)
		if len(later) != c.wait || len(now)+len(later) != len(gone) {
			t.Errorf("from %v to %v: %d of %d wait, want %d", c.before, c.after, len(later), len(gone), c.wait)
		}
		for _, e := range later {
			if e.verdict != "" {
				t.Errorf("%v leads where nothing is any more, and waits", e)
			}
		}
	}
}

// Endpoints of a Service have numbers of their own, which do not change: by them clients find again the one that they had.
func TestIdentify(t *testing.T) {
	for _, prefix := range []string{"10.244.%d.%d", "fd00:244::%x:%x"} {
		seen := map[uint32]netip.AddrPort{}
		for i := range 256 {
			for j := range 256 {
				at := netip.AddrPortFrom(netip.MustParseAddr(fmt.Sprintf(prefix, i, j)), 8080)
				if other, known := seen[identify(at)]; known {
					t.Fatalf("%v and %v have the same number", at, other)
				}
				seen[identify(at)] = at
			}
		}
	}
}
