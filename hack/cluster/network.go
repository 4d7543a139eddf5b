package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

const (
	bridge     = "sextant0"
	nascent    = "sextant0-new"
	hostIP     = "10.89.0.1"
	serviceNet = "10.96.0.0/16"
	podNet     = "10.244.0.0/16"
	// balancerNet is what services of type LoadBalancer get their addresses from.
	balancerNet = "10.90.0.0/24"
)

// sh runs one command; the error holds what it said.
func sh(args ...string) error {
	if text, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(text)))
	}
	return nil
}

// each runs commands in order, up to the first that fails.
func each(lines ...string) error {
	for _, l := range lines {
		if err := sh(strings.Fields(l)...); err != nil {
			return err
		}
	}
	return nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// raiseBridge makes the wire between the nodes, with the host on it. What a crash left half-made is made whole.
func raiseBridge() error {
	if len(out) > 255 {
		return fmt.Errorf("%s is longer than the 255 bytes by which the kernel remembers whose cluster stands; use a shorter path", out)
	}
	if !exists("/sys/class/net/" + bridge) {
		// An alias cannot be given at birth. Under its own name the bridge is seen with the alias only.
		if err := dropLink(nascent); err != nil {
			return err
		}
		if err := each("ip link add "+nascent+" type bridge", "ip link set "+nascent+" alias "+out, "ip link set "+nascent+" name "+bridge); err != nil {
			return err
		}
	}
	return each("ip addr replace "+hostIP+"/24 dev "+bridge, "ip link set "+bridge+" up")
}

// spaces is how the names of the nodes' network namespaces and cgroups begin.
const spaces = "sextant-node"

func (n node) netns() string { return "sextant-" + n.name }

// netnsMade says that up made the machine's folder of named network namespaces, so that down takes it away.
func netnsMade() string { return filepath.Join(out, "run", "netns-made") }

// raise makes the node's network namespace and joins it to the bridge.
func (n node) raise() error {
	ns, in := n.netns(), "ip -n "+n.netns()+" "
	if !exists("/run/netns") {
		if err := os.WriteFile(netnsMade(), nil, 0o644); err != nil {
			return err
		}
	}
	if !exists("/run/netns/" + ns) {
		if err := sh("ip", "netns", "add", ns); err != nil {
			return err
		}
	}
	if !exists("/sys/class/net/" + n.veth()) {
		if err := each("ip link add " + n.veth() + " type veth peer name eth0 netns " + ns); err != nil {
			return err
		}
	}
	return each(
		in+"link set lo up",
		"ip link set "+n.veth()+" master "+bridge+" up",
		in+"addr replace "+n.ip()+"/24 dev eth0",
		in+"link set eth0 up",
		in+"route replace default via "+hostIP,
		"nsenter --net=/run/netns/"+ns+" sysctl -qw net.ipv4.ip_forward=1",
	)
}

// lower removes the wires, the namespaces and, with them, every route and rule. A wire goes with its
// namespace too, but only once the kernel gets to it.
func lower() error {
	links, err := os.ReadDir("/sys/class/net")
	if err != nil {
		return err
	}
	for _, l := range links {
		if strings.HasPrefix(l.Name(), "sextant-n") {
			if err := sh("ip", "link", "del", l.Name()); err != nil {
				return err
			}
		}
	}
	named, err := os.ReadDir("/run/netns")
	if err != nil && !os.IsNotExist(err) {
		return err
	}
	for _, s := range named {
		if strings.HasPrefix(s.Name(), spaces) {
			if err := sh("ip", "netns", "del", s.Name()); err != nil {
				return err
			}
		}
	}
	// With the last namespace goes the folder, which ip mounts upon itself.
	if left, err := os.ReadDir("/run/netns"); exists(netnsMade()) && err == nil && len(left) == 0 {
		if err := syscall.Unmount("/run/netns", syscall.MNT_DETACH); err != nil {
			return fmt.Errorf("unmount /run/netns: %w", err)
		}
		return os.Remove("/run/netns")
	}
	return nil
}

// lowerBridge comes last: while it stands, so does the cluster.
func lowerBridge() error {
	return errors.Join(dropLink(nascent), dropLink(bridge))
}

func dropLink(name string) error {
	if !exists("/sys/class/net/" + name) {
		return nil
	}
	return sh("ip", "link", "del", name)
}
