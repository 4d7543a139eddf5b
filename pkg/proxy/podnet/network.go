package podnet

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	// protocol marks our routes, so that those of others are never touched.
	protocol = 83
	// fileName of the CNI configuration; it sorts before most.
	fileName = "10-sextant.conflist"
	network  = "sextant"
)

// Network is this node's part of the pod network.
type Network struct {
	Node    string
	Mode    string // HostGateway or VXLAN
	ConfDir string // of CNI configurations
	DataDir string // where host-local keeps its leases

	done *Plan // what the last Sync wrote; nil after an error
}

// Sync writes tunnels, routes and the CNI configuration, and answers this node's pod ranges; zero prefixes while it has none. What
// was written before is looked at again only if look is set.
func (n *Network) Sync(nodes []*Node, look bool) ([2]netip.Prefix, error) {
	p := decide(n.Node, n.Mode, nodes)
	if n.done != nil && !look && n.done.String() == p.String() {
		return p.Pods, nil
	}
	n.done = nil
	var errs []error
	index, mtu := 0, 0
	if n.Mode == VXLAN && p.At.IsValid() {
		link, err := syncTunnels(p)
		if err != nil {
			errs = append(errs, err)
		}
		if link != nil {
			index, mtu = link.Attrs().Index, link.Attrs().MTU
		}
	} else {
		errs = append(errs, dropTunnels())
	}
	if p.Pods[0].IsValid() || p.Pods[1].IsValid() {
		errs = append(errs, n.writeConf(p.Pods, mtu))
	}
	errs = append(errs, syncRoutes(p.Routes, index))
	err := errors.Join(errs...)
	if err == nil {
		n.done = &p
	}
	return p.Pods, err
}

func toIPNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// syncRoutes holds our routes to those wanted; index is the tunnels' device, or 0.
func syncRoutes(want []Route, index int) error {
	stale := map[string]netlink.Route{}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		held, err := netlink.RouteListFiltered(family, &netlink.Route{Protocol: protocol}, netlink.RT_FILTER_PROTOCOL)
		if err != nil {
			return fmt.Errorf("list routes: %w", err)
		}
		for _, r := range held {
			if r.Dst != nil {
				stale[routeKey(r, index)] = r
			}
		}
	}
	var errs []error
	for _, r := range want {
		route := netlink.Route{Dst: toIPNet(r.Pods), Gw: r.Via.AsSlice(), Protocol: protocol, LinkIndex: index}
		if index > 0 {
			route.Flags = int(netlink.FLAG_ONLINK)
		}
		if _, ok := stale[routeKey(route, index)]; ok {
			delete(stale, routeKey(route, index))
			continue
		}
		if err := netlink.RouteReplace(&route); err != nil {
			errs = append(errs, fmt.Errorf("route %v via %v to node %s: %w; host-gw needs all nodes on one link, vxlan does not", r.Pods, r.Via, r.Node, err))
		}
	}
	for _, r := range stale {
		if replaced(want, r.Dst.String()) {
			continue
		}
		if err := netlink.RouteDel(&r); err != nil && !errors.Is(err, unix.ESRCH) {
			errs = append(errs, fmt.Errorf("delete route %v: %w", r.Dst, err))
		}
	}
	return errors.Join(errs...)
}

// routeKey tells routes apart; through the tunnels' device or not is a difference.
func routeKey(r netlink.Route, index int) string {
	return fmt.Sprint(r.Dst, r.Gw, index > 0 && r.LinkIndex == index)
}

// replaced says that a route to the same pods has been written over: there is nothing left to delete.
func replaced(want []Route, to string) bool {
	for _, r := range want {
		if r.Pods.Addr().Is4() && r.Pods.String() == to {
			return true
		}
	}
	return false
}

// conf is the CNI configuration: a bridge with hairpin, so that a pod reaches itself through its Service, and host ports. An mtu
// of 0 leaves it to the kernel.
func (n *Network) conf(pods [2]netip.Prefix, mtu int) ([]byte, error) {
	type object = map[string]any
	ranges, routes := [][]object{}, []object{}
	for i, everywhere := range []string{"0.0.0.0/0", "::/0"} {
		if pods[i].IsValid() {
			ranges, routes = append(ranges, []object{{"subnet": pods[i].String()}}), append(routes, object{"dst": everywhere})
		}
	}
	ipam := object{"type": "host-local", "ranges": ranges, "routes": routes}
	if n.DataDir != "" {
		ipam["dataDir"] = n.DataDir
	}
	bridge := object{"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false, "hairpinMode": true, "ipam": ipam}
	if mtu > 0 {
		bridge["mtu"] = mtu
	}
	text, err := json.MarshalIndent(object{"cniVersion": "1.0.0", "name": network, "plugins": []object{
		bridge, {"type": "portmap", "capabilities": object{"portMappings": true}},
	}}, "", "  ")
	return append(text, '\n'), err
}

// writeConf puts the file in place whole, unless somebody else's file stands there.
func (n *Network) writeConf(pods [2]netip.Prefix, mtu int) error {
	text, err := n.conf(pods, mtu)
	if err != nil {
		return err
	}
	path := filepath.Join(n.ConfDir, fileName)
	old, err := os.ReadFile(path)
	switch {
	case err == nil && bytes.Equal(old, text):
		return nil
	case err == nil && !owned(old):
		return fmt.Errorf("%s is not ours: remove it, or run with --pod-network=none", path)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("read the CNI configuration: %w", err)
	}
	if err := os.MkdirAll(n.ConfDir, 0o755); err != nil {
		return fmt.Errorf("make --cni-conf-dir: %w", err)
	}
	temp, err := os.CreateTemp(n.ConfDir, ".sextant-*")
	if err != nil {
		return fmt.Errorf("write the CNI configuration: %w", err)
	}
	defer func() { _ = os.Remove(temp.Name()) }() // gone already when all went well
	_, err = temp.Write(text)
	err = errors.Join(err, temp.Chmod(0o644), temp.Close())
	if err == nil {
		err = os.Rename(temp.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write the CNI configuration: %w", err)
	}
	return nil
}

func owned(text []byte) bool {
	var c struct{ Name string }
	return json.Unmarshal(text, &c) == nil && c.Name == network
}

// Cleanup removes our routes and our file.
func (n *Network) Cleanup() error {
	path := filepath.Join(n.ConfDir, fileName)
	var errs []error
	if old, err := os.ReadFile(path); err == nil && owned(old) {
		errs = append(errs, os.Remove(path))
	}
	return errors.Join(append(errs, syncRoutes(nil, 0), dropTunnels())...)
}
