package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/sextant-k8s/sextant/hack/containerd"
)

// pauseImage is the one image of the bench's pods: its program waits for a signal and ends.
const pauseImage = "registry.sextant.local/pause:3.10"

// node is a container runtime, a kubelet and a proxy in the section's network namespace.
type node struct {
	runtime, kubelet, proxy *daemon
	socket                  string
}

// startNode starts all three; the proxy writes the runtime's network configuration.
func startNode(b *bench, p *plane) (*node, error) {
	n := &node{socket: filepath.Join(b.dir, "containerd.sock")}
	config := filepath.Join(b.dir, "containerd.toml")
	settings := containerd.Config{Dir: b.dir, State: filepath.Join(b.dir, "state"), Socket: n.socket, Pause: pauseImage, Tools: b.tools}
	if err := os.WriteFile(config, settings.TOML(), 0o644); err != nil {
		return nil, err
	}
	var err error
	if n.runtime, err = b.start("containerd", "", filepath.Join(b.tools, "containerd"), "-c", config); err != nil {
		return nil, err
	}
	err = await("containerd with the pause image", 30*time.Second, func() error {
		text, err := exec.Command(filepath.Join(b.tools, "ctr"), "-a", n.socket, "-n", "k8s.io", "images", "import", filepath.Join(b.images, "pause.tar")).CombinedOutput()
		if err != nil {
			err = fmt.Errorf("%w: %s", err, text)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("%w\n%s", err, n.runtime.tail())
	}
	err = os.WriteFile(filepath.Join(b.dir, "kubelet.yaml"), fmt.Appendf(nil, `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
containerRuntimeEndpoint: %q
podLogsDir: %q
cgroupRoot: %q
evictionHard: {memory.available: 100Mi}
imageGCHighThresholdPercent: 100
`, "unix://"+n.socket, filepath.Join(b.dir, "podlogs"), "/"+b.cgroup), 0o644)
	if err != nil {
		return nil, err
	}
	if err := n.startKubelet(b, p); err != nil {
		return nil, err
	}
	if n.proxy, err = startProxy(b, p, "iptables", "host-gw"); err != nil {
		return nil, err
	}
	err = await("the node ready", 40*time.Second, func() error {
		text, err := p.do("GET", "/api/v1/nodes/bench", jsonType, nil)
		if err == nil && !contains(text, `"reason":"KubeletReady"`) {
			err = fmt.Errorf("it is not")
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("%w\n%s\n%s", err, n.kubelet.tail(), n.proxy.tail())
	}
	return n, nil
}

// startKubelet starts it with the settings that lie in the section's folder.
func (n *node) startKubelet(b *bench, p *plane) error {
	kubeconfig, err := p.kubeconfig("kubelet")
	if err != nil {
		return err
	}
	n.kubelet, err = b.start("kubelet", "https://127.0.0.1:10250", filepath.Join(b.bin, "kubelet"), "--config", filepath.Join(b.dir, "kubelet.yaml"), "--kubeconfig", kubeconfig,
		"--hostname-override", "bench", "--node-ip", nodeIP, "--root-dir", filepath.Join(b.dir, "kubelet"))
	return err
}

// startProxy starts the proxy of the section's node.
func startProxy(b *bench, p *plane, mode, network string) (*daemon, error) {
	config, err := p.kubeconfig("proxy")
	if err != nil {
		return nil, err
	}
	return b.start("proxy", "http://127.0.0.1:10249", filepath.Join(b.bin, "proxy"), "--kubeconfig", config, "--hostname-override", "bench",
		"--proxy-mode", mode, "--pod-network", network, "--cni-conf-dir", filepath.Join(b.dir, "cni"), "--cni-data-dir", filepath.Join(b.dir, "ipam"), "--profiling")
}
