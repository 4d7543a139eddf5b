//go:build e2e

package e2e

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// leaseLimit is how long a killed leader's successor waits for the lease to run out, and then some.
const leaseLimit = 40 * time.Second

// victim is a daemon that is killed, and how one sees that it does its work.
type victim struct {
	name  string
	works func(c cluster)
}

// TestKilledDaemonsCarryOn kills each daemon with -9 while requests are made all the time. Pods must not notice, neither
// while it is dead nor once it is back; and once it is back it must do its work again.
func TestKilledDaemonsCarryOn(t *testing.T) {
	c := newCluster(t, "e2e-kill")
	urls := c.web(4)
	for _, u := range urls {
		c.within(10*time.Second, u+" answers", func() error { return answers(u) })
	}
	before := c.containers()
	requests := watchTraffic(urls)
	// What is in one row is killed together, since waiting together is shorter: for a lease to run out, for both nodes.
	for _, group := range [][]victim{
		{{"scheduler", schedules}, {"controller-manager", controls}},
		{{"proxy-node1", proxies("node1")}, {"proxy-node2", proxies("node2")}},
		{{"kubelet-node1", runsPods("node1")}, {"kubelet-node2", runsPods("node2")}},
		{{"containerd-node1", runsPods("node1")}, {"containerd-node2", runsPods("node2")}},
		{{"apiserver", serves}},
		{{"etcd", serves}},
	} {
		for _, d := range group {
			c.control("kill", d.name)
		}
		requests.flows(c, fmt.Sprintf("%v is dead", names(group)))
		for _, d := range group {
			c.control("start", d.name)
		}
		t.Run("again", func(t *testing.T) {
			for _, d := range group {
				t.Run(d.name, func(t *testing.T) {
					t.Parallel()
					d.works(c.of(t))
				})
			}
		})
		if after := c.containers(); after != before {
			t.Errorf("%v was killed and containers changed:\n%s\nbefore:\n%s", names(group), after, before)
		}
	}
	c.kubectl("wait", "--for=condition=Ready", "nodes", "--all", "--timeout=60s")
	requests.end(t)
}

func names(group []victim) []string {
	var all []string
	for _, d := range group {
		all = append(all, d.name)
	}
	return all
}

// containers are the web pods' containers: who, where, which, and how often started.
func (c cluster) containers() string {
	c.t.Helper()
	var said string
	c.within(leaseLimit, "pods can be listed", func() (err error) {
		said, err = c.tries(10*time.Second, "get", "pods", "-l", "app=web", "-o",
			`jsonpath={range .items[*]}{.metadata.name} {.spec.nodeName} {.status.containerStatuses[*].containerID} {.status.containerStatuses[*].restartCount}{"\n"}{end}`)
		return err
	})
	return said
}

var count atomic.Int32

// fresh is a name no other object has.
func fresh(what string) string {
	return fmt.Sprintf("%s-%d", what, count.Add(1))
}

// schedules sees that a new pod gets a node.
func schedules(c cluster) {
	name := fresh("bind")
	c.kubectl("run", name, "--image="+c.image(), "--", "sleep", "1000")
	c.kubectl("wait", "--for=condition=PodScheduled", "pod/"+name, "--timeout="+leaseLimit.String())
}

// controls sees that a deployment makes its pods.
func controls(c cluster) {
	name := fresh("made")
	c.kubectl("create", "deployment", name, "--image="+c.image(), "--replicas=2", "--", "sleep", "1000")
	c.within(leaseLimit, "a deployment makes its pods", func() error {
		if n := len(strings.Fields(c.kubectl("get", "pods", "-l", "app="+name, "-o", "name"))); n != 2 {
			return fmt.Errorf("%d pods", n)
		}
		return nil
	})
	c.kubectl("delete", "deployment", name)
	c.within(30*time.Second, "garbage is collected", func() error {
		if left := c.kubectl("get", "replicasets", "-l", "app="+name, "-o", "name"); strings.Contains(left, "/") {
			return fmt.Errorf("%s", left)
		}
		return nil
	})
}

// runsPods sees that a pod starts and ends on the node, and that its kubelet still answers for those it had.
func runsPods(node string) func(cluster) {
	return func(c cluster) {
		name := fresh("start")
		c.kubectl("run", name, "--image="+c.image(), fmt.Sprintf(`--overrides={"spec":{"nodeName":%q,"terminationGracePeriodSeconds":1}}`, node), "--", "sleep", "1000")
		c.kubectl("wait", "--for=condition=Ready", "pod/"+name, "--timeout=60s")
		old := c.kubectl("get", "pods", "-l", "app=web", "--field-selector=spec.nodeName="+node, "-o", "jsonpath={.items[0].metadata.name}")
		c.within(20*time.Second, "a command runs in a pod that was there before", func() error {
			said, err := c.tries(10*time.Second, "exec", old, "--", "hostname")
			if err == nil && said != old {
				err = fmt.Errorf("got %q", said)
			}
			return err
		})
		c.kubectl("delete", "pod", name, "--timeout=60s")
	}
}

// proxies sees that the node's table follows a service that is new, and one whose only endpoint is replaced.
func proxies(node string) func(cluster) {
	return func(c cluster) {
		name := "web-" + fresh("new")
		c.on(other(node), name, "httpd -f -p 80 -h /etc")
		c.kubectl("expose", "pod", name, "--port=80", "--type=NodePort")
		port := c.kubectl("get", "service", name, "-o", "jsonpath={.spec.ports[0].nodePort}")
		url := "http://" + nodeIPs[node] + ":" + port + "/hostname"
		c.within(20*time.Second, "a new endpoint answers by "+node, func() error { return answers(url) })
		c.kubectl("delete", "pod", name, "--grace-period=1")
		c.within(20*time.Second, "an endpoint that is gone does not", func() error {
			if answers(url) == nil {
				return fmt.Errorf("%s is answered", url)
			}
			return nil
		})
		c.kubectl("delete", "service", name)
	}
}

func other(node string) string {
	for name := range nodeIPs {
		if name != node {
			return name
		}
	}
	return ""
}

// serves sees that the API reads and writes, and that the daemons behind it have found it again.
func serves(c cluster) {
	name := fresh("kept")
	c.within(leaseLimit, "the API is ready", func() error {
		_, err := c.tries(10*time.Second, "get", "--raw", "/readyz")
		return err
	})
	c.within(20*time.Second, "writing", func() error {
		_, err := c.tries(10*time.Second, "create", "configmap", name)
		return err
	})
	for _, d := range []victim{
		{"scheduler", schedules}, {"controller-manager", controls},
		{"kubelet-node1", runsPods("node1")}, {"kubelet-node2", runsPods("node2")}, {"proxy-node1", proxies("node1")}, {"proxy-node2", proxies("node2")},
	} {
		c.t.Run(d.name, func(t *testing.T) {
			t.Parallel()
			d.works(c.of(t))
		})
	}
}
