package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// node is a machine made of a network namespace and a folder.
type node struct {
	name  string
	index int
}

func nodes(count int) []node {
	var all []node
	for i := 1; i <= count; i++ {
		all = append(all, node{fmt.Sprintf("node%d", i), i})
	}
	return all
}

func (n node) ip() string              { return fmt.Sprintf("10.89.0.%d", 10+n.index) }
func (n node) veth() string            { return fmt.Sprintf("sextant-n%d", n.index) }
func (n node) path(name string) string { return filepath.Join(out, "nodes", n.name, name) }
func (n node) socket() string          { return n.path("containerd.sock") }

// configure writes the runtime's and the kubelet's files. The disk is the machine's and full of other things, so no pod or
// image has to go because of it.
func (n node) configure(ca *authority) error {
	if err := os.MkdirAll(n.path("cni"), 0o755); err != nil {
		return err
	}
	kubelet := fmt.Appendf(nil, `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
containerRuntimeEndpoint: %q
staticPodPath: %q
podLogsDir: %q
cgroupRoot: %q
authorization: {mode: Webhook}
authentication: {x509: {clientCAFile: %q}, webhook: {enabled: true}, anonymous: {enabled: false}}
clusterDNS: [10.96.0.10]
clusterDomain: cluster.local
evictionHard: {memory.available: 100Mi, nodefs.available: "0%%", nodefs.inodesFree: "0%%", imagefs.available: "0%%", imagefs.inodesFree: "0%%"}
imageGCHighThresholdPercent: 100
`, "unix://"+n.socket(), n.path("manifests"), n.path("pods"), "/"+n.netns(), ca.path("ca.crt"))
	if err := os.MkdirAll(n.path("manifests"), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(n.path("flannel.json"), []byte(`{"Network": "`+podNet+`", "Backend": {"Type": "vxlan"}}`), 0o644); err != nil {
		return err
	}
	if err := os.WriteFile(n.path("containerd.toml"), n.runtimeConfig(), 0o644); err != nil {
		return err
	}
	if err := os.WriteFile(n.path("kubelet.yaml"), kubelet, 0o644); err != nil {
		return err
	}
	if err := ca.kubeconfig(n.path("kubelet.kubeconfig"), "kubelet-"+n.name, server, "system:node:"+n.name, "system:nodes"); err != nil {
		return err
	}
	return ca.kubeconfig(n.path("proxy.kubeconfig"), "proxy", server, "system:kube-proxy")
}

// daemons are the node's processes, in the order they start.
func (n node) daemons() []process {
	join := []string{"--pod-network", *podNetwork}
	if byFlannel() {
		join = []string{"--pod-network", "none", "--network-policy"}
	}
	all := []process{
		{"containerd-" + n.name, []string{tool("containerd"), "-c", n.path("containerd.toml")}, n.netns()},
		{"kubelet-" + n.name, []string{bin("kubelet"), "--config", n.path("kubelet.yaml"), "--kubeconfig", n.path("kubelet.kubeconfig"),
			"--hostname-override", n.name, "--node-ip", n.ip(), "--root-dir", n.path("kubelet"), "--v", "4"}, n.netns()},
		{"proxy-" + n.name, append([]string{bin("proxy"), "--kubeconfig", n.path("proxy.kubeconfig"), "--hostname-override", n.name,
			"--cluster-cidr", podNet, "--cni-conf-dir", n.path("cni"), "--cni-data-dir", n.path("ipam"),
			"--proxy-mode", *proxyMode}, join...), n.netns()},
	}
	if byFlannel() {
		all = append(all, n.flannel())
	}
	return all
}

// up makes the node and starts its daemons; the images are there before the kubelet asks for them.
func (n node) up(ca *authority) error {
	if err := n.raise(); err != nil {
		return err
	}
	if err := n.configure(ca); err != nil {
		return err
	}
	all := n.daemons()
	if err := all[0].start(); err != nil {
		return err
	}
	for _, image := range []string{"pause", "test", "coredns"} {
		err := within(20*time.Second, func() error {
			return sh(tool("ctr"), "-a", n.socket(), "-n", "k8s.io", "images", "import", filepath.Join(out, "images", image+".tar"))
		})
		if err != nil {
			return err
		}
	}
	for _, p := range all[1:] {
		if err := p.start(); err != nil {
			return err
		}
	}
	return nil
}

// within tries until it works or the time is over.
func within(limit time.Duration, try func() error) error {
	deadline := time.Now().Add(limit)
	for {
		err := try()
		if err == nil || time.Now().After(deadline) {
			return err
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// route lets the host reach the node's pods.
func (n node) route() error {
	return within(40*time.Second, func() error {
		cidr, err := exec.Command(bin("ctl"), "--kubeconfig", adminConfig(), "get", "node", n.name, "-o", "jsonpath={.spec.podCIDR}").Output()
		if err != nil {
			return fmt.Errorf("node %s: %w", n.name, err)
		}
		if len(cidr) == 0 {
			return fmt.Errorf("node %s has no podCIDR", n.name)
		}
		return sh("ip", "route", "replace", string(cidr), "via", n.ip())
	})
}
