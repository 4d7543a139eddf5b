// Package netlab builds networks out of namespaces for the proxy's tests: nodes, pods and hosts whose packets are real.
//
// A Space is a network namespace; what runs in it runs on a thread that has entered it. A test's own goroutine keeps the thread it was
// given, and the thread is thrown away with the test; other goroutines enter with Do. Everything goes through netlink, so that a guest with
// nothing but busybox will do. Nothing here is part of the daemon.
package netlab

import (
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Space is a network namespace.
type Space struct {
	t  *testing.T
	ns netns.NsHandle
}

// New makes a namespace with loopback up, and leaves the test's thread in it. It goes when the test ends.
func New(t *testing.T) *Space {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("packets are tested as root")
	}
	runtime.LockOSThread()
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ns.Close() })
	s := &Space{t: t, ns: ns}
	// An interface that looks for others of its address takes a second to speak.
	s.must("look for no others", os.WriteFile("/proc/sys/net/ipv6/conf/default/accept_dad", []byte("0"), 0o644))
	s.up("lo")
	return s
}

// Enter puts the test's thread into the space.
func (s *Space) Enter() {
	s.t.Helper()
	if err := netns.Set(s.ns); err != nil {
		s.t.Fatal(err)
	}
}

// Do runs f in the space, on any goroutine, and goes back to where the goroutine was.
func (s *Space) Do(f func()) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before, err := netns.Get()
	if err == nil {
		defer before.Close() //nolint:errcheck // a handle that was only read
		err = netns.Set(s.ns)
	}
	if err != nil {
		panic(err) // a thread in the wrong space would test something else
	}
	defer func() {
		if err := netns.Set(before); err != nil {
			panic(err)
		}
	}()
	f()
}

func (s *Space) must(what string, err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatalf("%s: %v", what, err)
	}
}

func (s *Space) up(name string) netlink.Link {
	s.t.Helper()
	var link netlink.Link
	s.Do(func() {
		var err error
		link, err = netlink.LinkByName(name)
		s.must("find "+name, err)
		s.must("raise "+name, netlink.LinkSetUp(link))
	})
	return link
}

// Bridge makes a bridge and raises it. It also stands in for a dummy device.
func (s *Space) Bridge(name string) {
	s.t.Helper()
	s.Do(func() {
		s.must("make "+name, netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: name}}))
	})
	s.up(name)
}

// Join lays a cable between two spaces, and raises its ends.
func (s *Space) Join(name string, o *Space, other string) {
	s.t.Helper()
	s.Do(func() {
		s.must("lay "+name, netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: other, PeerNamespace: netlink.NsFd(o.ns)}))
	})
	s.up(name)
	o.up(other)
}

// Plug lays a cable from the space's bridge to another space.
func (s *Space) Plug(bridge, name string, o *Space, other string) {
	s.t.Helper()
	s.Join(name, o, other)
	s.Do(func() {
		under, err := netlink.LinkByName(bridge)
		s.must("find "+bridge, err)
		port, err := netlink.LinkByName(name)
		s.must("find "+name, err)
		s.must("plug "+name, netlink.LinkSetMaster(port, under))
	})
}

// Address gives an interface addresses, like "10.0.0.1/24".
func (s *Space) Address(link string, addresses ...string) {
	s.t.Helper()
	s.Do(func() {
		l, err := netlink.LinkByName(link)
		s.must("find "+link, err)
		for _, a := range addresses {
			p := netip.MustParsePrefix(a)
			at := &netlink.Addr{IPNet: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}}
			if p.Addr().Is6() {
				at.Flags = unix.IFA_F_NODAD // without looking for another that has it, which takes a second
			}
			s.must("address "+a, netlink.AddrAdd(l, at))
		}
	})
}

// Route leads to a prefix, or to everywhere with "default" or "default6", by way of a neighbour, or directly over a link where via is empty.
func (s *Space) Route(to, via, link string) {
	s.t.Helper()
	r := &netlink.Route{}
	switch to {
	case "default":
		to = "0.0.0.0/0"
	case "default6":
		to = "::/0"
	}
	p := netip.MustParsePrefix(to)
	r.Dst = &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
	if via != "" {
		r.Gw = net.ParseIP(via)
	}
	s.Do(func() {
		if link != "" {
			l, err := netlink.LinkByName(link)
			s.must("find "+link, err)
			r.LinkIndex = l.Attrs().Index
		}
		if r.Gw != nil && link != "" {
			r.Flags = int(netlink.FLAG_ONLINK)
		}
		s.must("route "+to, netlink.RouteAdd(r))
	})
}

// Forward lets the space pass packets on, in both families, and tell of each that it refuses: by itself the kernel tells some a second.
func (s *Space) Forward() {
	s.t.Helper()
	s.Do(func() {
		s.must("forward", os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644))
		s.must("forward IPv6", os.WriteFile("/proc/sys/net/ipv6/conf/all/forwarding", []byte("1"), 0o644))
		s.must("tell", os.WriteFile("/proc/sys/net/ipv4/icmp_ratelimit", []byte("0"), 0o644))
		s.must("tell over IPv6", os.WriteFile("/proc/sys/net/ipv6/icmp/ratelimit", []byte("0"), 0o644))
	})
}

// Sh runs a command, of words without blanks, where the calling thread is, and answers what it says.
func Sh(t *testing.T, line string) string {
	t.Helper()
	words := strings.Fields(line)
	out, err := exec.Command(words[0], words[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", line, err, out)
	}
	return string(out)
}

// Alone is a node without neighbours: eth0 with 192.0.2.10 and 2001:db8::10, and routes to everywhere through it. The pods' addresses are its own.
func Alone(t *testing.T, pods ...string) *Space {
	t.Helper()
	s := New(t)
	s.Bridge("eth0")
	s.Address("eth0", "192.0.2.10/24", "2001:db8::10/64")
	s.Route("default", "192.0.2.1", "eth0")
	s.Route("default6", "2001:db8::1", "eth0")
	s.Address("lo", pods...)
	return s
}
