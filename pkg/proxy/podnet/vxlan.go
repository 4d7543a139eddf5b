package podnet

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	device = "sextant.vxlan"
	vni    = 1
	port   = 4789
)

// mac is a node's address in the tunnel. It follows from its address under it, so that no node needs to tell it.
func mac(at netip.Addr) net.HardwareAddr {
	raw := at.As16()
	return append(net.HardwareAddr{0x0a, 0x58}, raw[12:]...)
}

// overhead is how much smaller packets are in the tunnel.
func overhead(at netip.Addr) int {
	if at.Is4() {
		return 50
	}
	return 70
}

// under answers the link that holds an address.
func under(at netip.Addr) (netlink.Link, error) {
	held, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range held {
		if ip, ok := netip.AddrFromSlice(a.IP); ok && ip.Unmap() == at {
			return netlink.LinkByIndex(a.LinkIndex)
		}
	}
	return nil, fmt.Errorf("no interface has the node's address %v", at)
}

// raise makes the device as it should be, and answers it. One that differs in what cannot be changed is made anew.
func raise(p Plan) (netlink.Link, error) {
	below, err := under(p.At)
	if err != nil {
		return nil, err
	}
	want := &netlink.Vxlan{LinkAttrs: netlink.LinkAttrs{Name: device, MTU: below.Attrs().MTU - overhead(p.At), HardwareAddr: mac(p.At)},
		VxlanId: vni, Port: port, SrcAddr: p.At.AsSlice(), VtepDevIndex: below.Attrs().Index, Learning: false}
	link, err := netlink.LinkByName(device)
	if err == nil {
		held, ok := link.(*netlink.Vxlan)
		if !ok {
			return nil, fmt.Errorf("the interface %s is not ours: remove it", device)
		}
		if held.VxlanId != vni || held.Port != port || !held.SrcAddr.Equal(want.SrcAddr) || held.VtepDevIndex != want.VtepDevIndex ||
			held.MTU != want.MTU || !slices.Equal(held.HardwareAddr, want.HardwareAddr) {
			if err := netlink.LinkDel(link); err != nil {
				return nil, fmt.Errorf("remove %s: %w", device, err)
			}
			link = nil
		}
	} else {
		link = nil
	}
	if link == nil {
		if err := netlink.LinkAdd(want); err != nil {
			return nil, fmt.Errorf("make the interface %s: %w", device, err)
		}
		if link, err = netlink.LinkByName(device); err != nil {
			return nil, fmt.Errorf("find %s: %w", device, err)
		}
	}
	for _, pods := range p.Pods {
		if pods.IsValid() {
			at := &netlink.Addr{IPNet: toIPNet(netip.PrefixFrom(pods.Addr(), pods.Addr().BitLen()))}
			if err := netlink.AddrReplace(link, at); err != nil {
				return nil, fmt.Errorf("address %v on %s: %w", at, device, err)
			}
		}
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return nil, fmt.Errorf("raise %s: %w", device, err)
	}
	return link, nil
}

// syncTunnels holds the device, and who is behind it, to the plan.
func syncTunnels(p Plan) (link netlink.Link, err error) {
	if link, err = raise(p); err != nil {
		return nil, err
	}
	index := link.Attrs().Index
	wanted := map[string]netlink.Neigh{}
	for _, peer := range p.Peers {
		add := func(n netlink.Neigh) {
			n.LinkIndex, n.State, n.HardwareAddr = index, netlink.NUD_PERMANENT, mac(peer.At)
			wanted[neighbour(n)] = n
		}
		add(netlink.Neigh{Family: unix.AF_BRIDGE, Flags: netlink.NTF_SELF, IP: peer.At.AsSlice()})
		for _, inside := range peer.Inside {
			family := unix.AF_INET
			if inside.Is6() {
				family = unix.AF_INET6
			}
			add(netlink.Neigh{Family: family, IP: inside.AsSlice()})
		}
	}
	var errs []error
	for _, family := range []int{unix.AF_BRIDGE, unix.AF_INET, unix.AF_INET6} {
		held, err := netlink.NeighList(index, family)
		if err != nil {
			return nil, fmt.Errorf("list neighbours of %s: %w", device, err)
		}
		for _, n := range held {
			n.Family = family
			if _, stays := wanted[neighbour(n)]; stays {
				delete(wanted, neighbour(n))
			} else if n.State&netlink.NUD_PERMANENT != 0 {
				n.LinkIndex = index
				if family == unix.AF_BRIDGE {
					n.Flags = netlink.NTF_SELF
				}
				if err := netlink.NeighDel(&n); err != nil && !errors.Is(err, unix.ENOENT) {
					errs = append(errs, fmt.Errorf("forget neighbour %v: %w", n.IP, err))
				}
			}
		}
	}
	for _, n := range wanted {
		if err := netlink.NeighSet(&n); err != nil {
			errs = append(errs, fmt.Errorf("neighbour %v at %v: %w", n.IP, n.HardwareAddr, err))
		}
	}
	return link, errors.Join(errs...)
}

func neighbour(n netlink.Neigh) string {
	return fmt.Sprint(n.Family, n.HardwareAddr, n.IP)
}

// dropTunnels removes the device, if it is there.
func dropTunnels() error {
	link, err := netlink.LinkByName(device)
	if err != nil {
		return nil //nolint:nilerr // there is none
	}
	if _, ok := link.(*netlink.Vxlan); !ok {
		return nil
	}
	if err := netlink.LinkDel(link); err != nil {
		return fmt.Errorf("remove %s: %w", device, err)
	}
	return nil
}
