package desired

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// Endpoints that stay keep their places, and those that come fill what is free: no more places differ than endpoints came or went.
func TestEndpointsKeepTheirPlaces(t *testing.T) {
	compare := func(a, b Endpoint) int { return a.At.Compare(b.At) }
	rapid.Check(t, func(t *rapid.T) {
		draw := func(name string) []Endpoint {
			var out []Endpoint
			for _, n := range rapid.SliceOfNDistinct(rapid.Byte(), 0, 12, rapid.ID).Draw(t, name) {
				out = append(out, Endpoint{At: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, n % 16}), uint16(n/16))})
			}
			slices.SortFunc(out, compare)
			return out
		}
		before, now := draw("before"), draw("now")
		got := settle(now, before)
		if !slices.Equal(slices.SortedFunc(slices.Values(got), compare), now) {
			t.Fatalf("%v became %v", now, got)
		}
		moved, came := 0, 0
		for i, e := range got {
			if i >= len(before) || before[i] != e {
				moved++
			}
			if !slices.Contains(before, e) {
				came++
			}
		}
		if went := len(before) - (len(now) - came); moved > came+went {
			t.Fatalf("%d places differ for %d that came and %d that went: %v -> %v", moved, came, went, before, got)
		}
	})
}

func TestUnchangedIsNoChange(t *testing.T) {
	ports := func(n int) []Port {
		var to []Endpoint
		for i := range n {
			to = append(to, Endpoint{At: netip.MustParseAddrPort(fmt.Sprintf("10.0.0.%d:80", i))})
		}
		return []Port{{Name: "x/a", Protocol: "tcp", ClusterIP: netip.MustParseAddr("10.96.0.1"), Number: 80, Inner: to, Outer: to, Any: to}}
	}
	var table Table
	for i, c := range []struct {
		ports   []Port
		changed bool
	}{{ports(2), true}, {ports(2), false}, {ports(3), true}, {nil, true}, {nil, false}} {
		if _, changed := table.Set("x/a", c.ports); changed != c.changed {
			t.Errorf("step %d: changed is %v", i, changed)
		}
	}
	if table.Services() != 0 {
		t.Error("a Service without ports is held")
	}
}
