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
	v1 "k8s.io/api/core/v1"
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
	ConfDir string // of CNI configurations
	DataDir string // where host-local keeps its leases
}

// Sync writes routes and the CNI configuration, and answers this node's pod range; the zero prefix while it has none.
func (n *Network) Sync(nodes []*v1.Node) (netip.Prefix, error) {
	p := decide(n.Node, nodes)
	var errs []error
	if p.Pods.IsValid() {
		errs = append(errs, n.writeConf(p.Pods))
	}
	errs = append(errs, syncRoutes(p.Routes))
	return p.Pods, errors.Join(errs...)
}

func toIPNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func syncRoutes(want []Route) error {
	held, err := netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Protocol: protocol}, netlink.RT_FILTER_PROTOCOL)
	if err != nil {
		return fmt.Errorf("list routes: %w", err)
	}
	stale := map[string]netlink.Route{}
	for _, r := range held {
		if r.Dst != nil {
			stale[r.Dst.String()+" "+r.Gw.String()] = r
		}
	}
	var errs []error
	for _, r := range want {
		key := r.Pods.String() + " " + r.Via.String()
		if _, ok := stale[key]; ok {
			delete(stale, key)
			continue
		}
		if err := netlink.RouteReplace(&netlink.Route{Dst: toIPNet(r.Pods), Gw: r.Via.AsSlice(), Protocol: protocol}); err != nil {
			errs = append(errs, fmt.Errorf("route %v via %v to node %s: %w; host-gw needs all nodes on one link", r.Pods, r.Via, r.Node, err))
		}
	}
	for _, r := range stale {
		if replaced(want, r.Dst.String()) {
			continue
		}
		if err := netlink.RouteDel(&r); err != nil {
			errs = append(errs, fmt.Errorf("delete route %v: %w", r.Dst, err))
		}
	}
	return errors.Join(errs...)
}

// replaced says that a route to the same pods has been written over: there is nothing left to delete.
func replaced(want []Route, to string) bool {
	for _, r := range want {
		if r.Pods.String() == to {
			return true
		}
	}
	return false
}

// conf is the CNI configuration: a bridge with hairpin, so that a pod reaches itself through its Service, and host ports.
func (n *Network) conf(pods netip.Prefix) ([]byte, error) {
	type object = map[string]any
	ipam := object{"type": "host-local", "ranges": [][]object{{{"subnet": pods.String()}}}, "routes": []object{{"dst": "0.0.0.0/0"}}}
	if n.DataDir != "" {
		ipam["dataDir"] = n.DataDir
	}
	text, err := json.MarshalIndent(object{"cniVersion": "1.0.0", "name": network, "plugins": []object{
		{"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false, "hairpinMode": true, "ipam": ipam},
		{"type": "portmap", "capabilities": object{"portMappings": true}},
	}}, "", "  ")
	return append(text, '\n'), err
}

// writeConf puts the file in place whole, unless somebody else's file stands there.
func (n *Network) writeConf(pods netip.Prefix) error {
	text, err := n.conf(pods)
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
	return errors.Join(append(errs, syncRoutes(nil))...)
}
