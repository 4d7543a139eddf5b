package ipvs

import (
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// originated is the protocol of routes that are ours, as of those to other nodes' pods.
const originated = 83

// loopback is the number of every namespace's own interface.
const loopback = 1

// bind queues what makes packets to an address come to this node. Of IPv4 that is a local route, which is all that an address would be here: the kernel keeps
// a device's addresses of IPv4 in one list and walks it for each that comes or goes. The route leads to loopback, for those to a device go
// with its last address. IPv6 has no such list.
func (b *Backend) bind(link netlink.Link, a netip.Addr) error {
	r := request{doing: "bind", of: netip.AddrPortFrom(a, 0)}
	if a.Is4() {
		return b.route(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, r, a)
	}
	return b.address(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, r, link, a)
}

func (b *Backend) unbind(link netlink.Link, a netip.Addr) error {
	r := request{doing: "unbind", of: netip.AddrPortFrom(a, 0), fine: unix.EADDRNOTAVAIL}
	if a.Is4() {
		r.fine = unix.ESRCH
		return b.route(unix.RTM_DELROUTE, 0, r, a)
	}
	return b.address(unix.RTM_DELADDR, 0, r, link, a)
}

// bindOnly makes the addresses of bound local and no others of ours. Those of IPv4 that another proxy left on it give way to routes, never
// without either.
func (b *Backend) bindOnly(link netlink.Link) error {
	have, err := netlink.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("list addresses of %s: %w", device, err)
	}
	routes, err := netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Table: unix.RT_TABLE_LOCAL, LinkIndex: loopback, Protocol: originated},
		netlink.RT_FILTER_TABLE|netlink.RT_FILTER_OIF|netlink.RT_FILTER_PROTOCOL)
	if err != nil {
		return fmt.Errorf("list local routes: %w", err)
	}
	there := map[netip.Addr]bool{}
	for _, r := range routes {
		if ip, ok := netip.AddrFromSlice(r.Dst.IP); ok {
			there[ip.Unmap()] = true
		}
	}
	var others []netip.Addr
	for _, a := range have {
		ip, _ := netip.AddrFromSlice(a.IP)
		switch ip = ip.Unmap(); {
		case ip.Is4():
			others = append(others, ip)
		case !ip.IsLinkLocalUnicast():
			there[ip] = true
		}
	}
	for a := range there {
		if b.bound[a] == 0 {
			if err := b.unbind(link, a); err != nil {
				return err
			}
		}
	}
	for a := range b.bound {
		if !there[a] {
			if err := b.bind(link, a); err != nil {
				return err
			}
		}
	}
	for _, a := range others {
		r := request{doing: "take off the device", of: netip.AddrPortFrom(a, 0), fine: unix.EADDRNOTAVAIL}
		if err := b.address(unix.RTM_DELADDR, 0, r, link, a); err != nil {
			return err
		}
	}
	return b.routes.flush()
}

// route queues a request about a local route.
func (b *Backend) route(kind, flags uint16, r request, a netip.Addr) error {
	l := b.routes
	l.begin(kind, flags, r)
	l.raw(family(a), byte(a.BitLen()), 0, 0, unix.RT_TABLE_LOCAL, originated, unix.RT_SCOPE_HOST, unix.RTN_LOCAL)
	l.raw(native32(0)...)
	l.attr(unix.RTA_DST, a.AsSlice())
	l.attr(unix.RTA_OIF, native32(loopback))
	return l.end()
}

// address queues a request about an address of the device.
func (b *Backend) address(kind, flags uint16, r request, link netlink.Link, a netip.Addr) error {
	l := b.routes
	l.begin(kind, flags, r)
	l.raw(family(a), byte(a.BitLen()), 0, 0)
	l.raw(native32(uint32(link.Attrs().Index))...)
	l.attr(unix.IFA_LOCAL, a.AsSlice())
	l.attr(unix.IFA_ADDRESS, a.AsSlice())
	if a.Is6() {
		l.attr(unix.IFA_FLAGS, native32(unix.IFA_F_NODAD))
	}
	return l.end()
}
