package main

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
)

const (
	bridge     = "sextant0"
	hostIP     = "10.89.0.1"
	serviceNet = "10.96.0.0/16"
	podNet     = "10.244.0.0/16"
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

// raiseBridge makes the wire between the nodes, with the host on it.
func raiseBridge() error {
	if exists("/sys/class/net/" + bridge) {
		return nil
	}
	return each("ip link add "+bridge+" type bridge", "ip addr add "+hostIP+"/24 dev "+bridge, "ip link set "+bridge+" up")
}

func (n node) netns() string { return "sextant-" + n.name }

// raise makes the node's network namespace and joins it to the bridge.
func (n node) raise() error {
	if exists("/run/netns/" + n.netns()) {
		return nil
	}
	ns, in := n.netns(), "ip -n "+n.netns()+" "
	return each(
		"ip netns add "+ns,
		in+"link set lo up",
		"ip link add "+n.veth()+" type veth peer name eth0 netns "+ns,
		"ip link set "+n.veth()+" master "+bridge+" up",
		in+"addr add "+n.ip()+"/24 dev eth0",
		in+"link set eth0 up",
		in+"route add default via "+hostIP,
		"nsenter --net=/run/netns/"+ns+" sysctl -qw net.ipv4.ip_forward=1",
	)
}

// lower removes the wires, the bridge, the namespaces and, with them, every route and rule. A wire goes with its
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
	spaces, err := os.ReadDir("/run/netns")
	if err != nil && !os.IsNotExist(err) {
		return err
	}
	for _, s := range spaces {
		if strings.HasPrefix(s.Name(), "sextant-") {
			if err := sh("ip", "netns", "del", s.Name()); err != nil {
				return err
			}
		}
	}
	if exists("/sys/class/net/" + bridge) {
		return sh("ip", "link", "del", bridge)
	}
	return nil
}
