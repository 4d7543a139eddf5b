package main

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// byFlannel says that a third party joins the pods: flannel, with tunnels of its own. The proxy then has no part in it.
func byFlannel() bool { return *podNetwork == "flannel" }

// flannel is the daemon of a node. It takes the node's range of pods from the API.
func (n node) flannel() process {
	return process{"flannel-" + n.name, []string{"env", "NODE_NAME=" + n.name, filepath.Join(out, "tools", "bin", "flannel"), "--kube-subnet-mgr",
		"--kubeconfig-file", adminConfig(), "--net-config-path", n.path("flannel.json"), "--subnet-file", n.path("subnet.env"), "--iface", "eth0", "--ip-masq"}, n.netns()}
}

// joinByFlannel writes the CNI configuration that flannel's plugin would make of what the daemon says: a bridge with the node's range.
func (n node) joinByFlannel() error {
	said := map[string]string{}
	err := within(40*time.Second, func() error {
		text, err := os.ReadFile(n.path("subnet.env"))
		for line := range strings.Lines(string(text)) {
			name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
			said[name] = value
		}
		if err == nil && said["FLANNEL_SUBNET"] == "" {
			err = fmt.Errorf("no subnet in %s", n.path("subnet.env"))
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("flannel of %s: %w", n.name, err)
	}
	first, err := netip.ParsePrefix(said["FLANNEL_SUBNET"])
	if err != nil {
		return fmt.Errorf("flannel of %s: %w", n.name, err)
	}
	conf := fmt.Sprintf(`{"cniVersion": "1.0.0", "name": "cbr0", "plugins": [
  {"type": "bridge", "bridge": "cni0", "mtu": %s, "isDefaultGateway": true, "hairpinMode": true, "ipMasq": false,
   "ipam": {"type": "host-local", "dataDir": %q, "ranges": [[{"subnet": "%v"}]], "routes": [{"dst": %q}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
`, said["FLANNEL_MTU"], n.path("ipam"), first.Masked(), said["FLANNEL_NETWORK"])
	// containerd looks again when a file of the folder loses its name, not when one comes into it.
	made := filepath.Join(n.path("cni"), "flannel.new")
	if err := os.WriteFile(made, []byte(conf), 0o644); err != nil {
		return err
	}
	return os.Rename(made, filepath.Join(n.path("cni"), "10-flannel.conflist"))
}
