//go:build e2e

package e2e

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestGuest is for a machine of its own, with a kernel that has IPVS and with next to nothing else on it: `make guest` makes one. It starts
// the cluster with the proxies in that mode, and does what is done to the others: Services are asked from everywhere, policies
// hold, clients stay, endpoints go. Then the proxies change their mode and back under the same Services, and of the mode before nothing is left.
func TestGuest(t *testing.T) {
	if os.Getenv("SEXTANT_GUEST") == "" {
		t.Log("this is no guest; see `make guest`")
		return
	}
	// There is no KVM for it: every instruction is translated.
	slower = 5
	m := guest{t}
	m.run("ip", "link", "set", "lo", "up")
	// The cluster's DNS asks outside for names that are not its own; there is none, and it shall learn so at once.
	m.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
	m.run("ip", "route", "add", "unreachable", "default")
	census := filepath.Join(t.TempDir(), "census")
	m.must(m.cluster("ipvs", "census", census))
	t.Cleanup(func() {
		// Of a sandbox that is being made when its runtime ends, the CNI's and the shim's files may stay.
		m.run(kubectl.path, "wait", "--for=delete", "namespace/e2e-modes", "--timeout="+(time.Minute*slower).String())
		m.must(m.cluster("ipvs", "down"))
		m.must(m.cluster("ipvs", "same", census))
	})
	m.up("ipvs")
	t.Run("Web", TestWeb)
	t.Run("LoadBalancer", TestLoadBalancer)
	t.Run("NetworkPolicy", TestNetworkPolicy)
	c := newCluster(t, "e2e-modes")
	urls := c.web(3)
	for i, mode := range []string{"ipvs", "nftables", "ipvs"} {
		if i > 0 {
			m.become(mode)
		}
		for node := range nodeIPs {
			c.within(20*time.Second, node+" is led by "+mode+" alone", func() error { return m.holds(node, mode) })
		}
		c.serves(mode, urls)
	}
}

// guest is the machine that a cluster is started on.
type guest struct{ t *testing.T }

func (m guest) run(args ...string) string {
	m.t.Helper()
	text, err := command(commandLimit, args...).CombinedOutput()
	if err != nil {
		m.t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, text)
	}
	return string(text)
}

// cluster runs hack/cluster as the Makefile does.
func (m guest) cluster(mode string, args ...string) error {
	m.t.Helper()
	pause, err := pauseImage()
	if err != nil {
		return err
	}
	text, err := command(commandLimit, append([]string{filepath.Join(root, "_out/tools/bin/cluster"), "-out", filepath.Join(root, "_out"), "-bin", filepath.Join(root, "bin"),
		"-addons", filepath.Join(root, "manifests/addons"), "-nodes", fmt.Sprint(len(nodeIPs)), "-proxy-mode", mode, "-pause-image", pause}, args...)...).CombinedOutput()
	m.t.Logf("%s: cluster %s %s", mode, strings.Join(args, " "), text)
	return err
}

func (m guest) must(err error) {
	m.t.Helper()
	if err != nil {
		m.t.Fatal(err)
	}
}

// up starts what does not run. It is patient with each step as with a machine that is not emulated, and goes on where it gave up.
func (m guest) up(mode string) {
	m.t.Helper()
	var err error
	for range slower {
		if err = m.cluster(mode, "up"); err == nil {
			return
		}
	}
	m.t.Fatal(err)
}

// become starts the proxies anew, in the mode.
func (m guest) become(mode string) {
	m.t.Helper()
	for node := range nodeIPs {
		m.must(m.cluster(mode, "stop", "proxy-"+node))
	}
	m.up(mode)
}

// holds fails unless the node's kernel holds what the mode needs, and nothing of the other.
func (m guest) holds(node, mode string) error {
	in := func(args ...string) string {
		return m.run(append([]string{"nsenter", "--net=/run/netns/sextant-" + node, "--"}, args...)...)
	}
	// Of a table that is empty there are three lines of headings.
	servers := strings.Count(in("cat", "/proc/net/ip_vs"), "\n") > 3
	device := strings.Contains(in("ip", "-brief", "link"), "kube-ipvs0")
	addresses := in("ip", "route", "show", "table", "local", "proto", "83") != ""
	tables := strings.Fields(in("nft", "list", "tables"))
	got := fmt.Sprintf("servers %v, device %v, addresses %v, table beside %v, table %v", servers, device, addresses, slices.Contains(tables, "kube-proxy-beside"), slices.Contains(tables, "kube-proxy"))
	is := mode == "ipvs"
	if want := fmt.Sprintf("servers %v, device %v, addresses %v, table beside %v, table %v", is, is, is, is, !is); got != want {
		return fmt.Errorf("it has %s; want %s", got, want)
	}
	return nil
}

// serves asks the web service of three pods as clients that may go anywhere, as clients that stay, and when but one pod is left.
func (c cluster) serves(when string, urls []string) {
	c.t.Helper()
	// asked answers who spoke in so many answers in a row.
	asked := func(url string, times int) (map[string]bool, error) {
		seen := map[string]bool{}
		for range times {
			pod, err := ask(url)
			if err != nil {
				return nil, err
			}
			seen[pod] = true
		}
		return seen, nil
	}
	want := func(what string, pods int) {
		c.t.Helper()
		for _, u := range urls {
			c.within(20*time.Second, fmt.Sprintf("%s, %s: %s", when, what, u), func() error {
				seen, err := asked(u, 24)
				if err == nil && len(seen) != pods {
					err = fmt.Errorf("%v answer, want %d", slices.Sorted(maps.Keys(seen)), pods)
				}
				return err
			})
		}
	}
	want("three pods", 3)
	c.kubectl("patch", "service", "web", "-p", `{"spec":{"sessionAffinity":"ClientIP"}}`)
	want("clients stay", 1)
	c.kubectl("patch", "service", "web", "-p", `{"spec":{"sessionAffinity":"None"}}`)
	want("clients go anywhere again", 3)
	c.kubectl("scale", "deployment/web", "--replicas=1")
	c.kubectl("rollout", "status", "deployment/web", "--timeout="+(time.Minute*slower).String())
	want("one pod is left", 1)
	c.kubectl("scale", "deployment/web", "--replicas=3")
	c.kubectl("rollout", "status", "deployment/web", "--timeout="+(time.Minute*slower).String())
	want("three pods again", 3)
}
