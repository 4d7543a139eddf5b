package ipvs

import (
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sextant-k8s/sextant/pkg/proxy/netlab"
)

// Thousands of addresses are bound and let go in a few messages; one that cannot be done is told by its name, and the others are done.
func TestAddresses(t *testing.T) {
	netlab.New(t)
	attrs := netlink.NewLinkAttrs()
	attrs.Name = device
	if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
		t.Fatal(err)
	}
	link, err := netlink.LinkByName(device)
	if err != nil {
		t.Fatal(err)
	}
	routes, err := open(unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(routes.fd) //nolint:errcheck // the test is over
	b := &Backend{routes: routes, bound: map[netip.Addr]int{}}
	v4 := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 96, byte(i >> 8), byte(i)}) }
	six := netip.MustParseAddr("fd00:96::10")
	for i := range 3000 {
		b.bound[v4(i)] = 1
	}
	b.bound[six] = 1
	// What upstream's proxy left: one that stays and one that goes.
	for _, left := range []string{"10.96.0.7/32", "10.99.0.1/32"} {
		a, _ := netlink.ParseAddr(left)
		if err := netlink.AddrAdd(link, a); err != nil {
			t.Fatal(err)
		}
	}
	local := func(a netip.Addr) bool {
		r, err := netlink.RouteGet(a.AsSlice())
		return err == nil && len(r) == 1 && r[0].Type == unix.RTN_LOCAL
	}
	want := func(is bool, list ...netip.Addr) {
		t.Helper()
		for _, a := range list {
			// The kernel routes to an address of IPv6 a moment after it has it.
			for began := time.Now(); local(a) != is; time.Sleep(10 * time.Millisecond) {
				if time.Since(began) > 5*time.Second {
					t.Errorf("%v is local: %v; want %v", a, !is, is)
					break
				}
			}
		}
	}
	for range 2 {
		if err := b.bindOnly(link); err != nil {
			t.Fatal(err)
		}
		want(true, v4(0), v4(7), v4(1234), v4(2999), six)
		want(false, v4(3000), netip.MustParseAddr("10.99.0.1"))
	}
	delete(b.bound, v4(1234))
	delete(b.bound, six)
	if err := b.bindOnly(link); err != nil {
		t.Fatal(err)
	}
	want(false, v4(1234), six)
	want(true, v4(7), v4(1235))

	// Letting go what is not there is no failure; a device that is not there is one, told by the address, and the next address is bound.
	nowhere := &netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Index: 9999}}
	for _, err := range []error{b.unbind(link, v4(1234)), b.unbind(link, six), b.bind(nowhere, netip.MustParseAddr("fd00:96::40")), b.bind(link, netip.MustParseAddr("fd00:96::41"))} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := routes.flush(); err == nil || !strings.Contains(err.Error(), "fd00:96::40") {
		t.Errorf("flush: %v; want one that names fd00:96::40", err)
	}
	want(true, netip.MustParseAddr("fd00:96::41"))
	if err := routes.flush(); err != nil {
		t.Errorf("a failure is told twice: %v", err)
	}
	if text, err := exec.Command("ip", "-4", "addr", "show", "dev", device).CombinedOutput(); err == nil && strings.Contains(string(text), "inet ") {
		t.Errorf("left on the device: %s", text)
	}
}
