//go:build e2e

package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestDeploymentAnswersThroughItsService(t *testing.T) {
	c := newCluster(t, "e2e-web")
	urls := c.web(4)
	for _, u := range urls {
		c.within(10*time.Second, "the service answers the host", func() error { return answers(u) })
	}
	if on := c.kubectl("get", "pods", "-o", "jsonpath={.items[*].spec.nodeName}"); strings.Count(on, "node1") != 2 || strings.Count(on, "node2") != 2 {
		t.Errorf("four replicas are not spread over two nodes: %s", on)
	}
	c.kubectl("scale", "deployment/web", "--replicas=2")
	c.within(60*time.Second, "scaling down", func() error {
		if n := len(strings.Fields(c.kubectl("get", "pods", "-o", "name"))); n != 2 {
			return fmt.Errorf("%d pods", n)
		}
		return nil
	})
	c.kubectl("delete", "pods", "--all", "--wait=false")
	c.within(60*time.Second, "deleted pods are replaced", func() error { return answers(urls[0]) })
}

func TestPodsOfEachNodeReachTheService(t *testing.T) {
	c := newCluster(t, "e2e-pods")
	urls := c.web(2)
	for _, node := range []string{"node1", "node2"} {
		c.kubectl("run", "ask-"+node, "--image="+c.image(), "--restart=Never",
			fmt.Sprintf(`--overrides={"spec":{"nodeName":%q}}`, node), "--", "wget", "-qO-", "-T", "5", urls[0])
		c.kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/ask-"+node, "--timeout=30s")
		if said := c.kubectl("logs", "ask-"+node); !strings.HasPrefix(said, "web-") {
			t.Errorf("a pod on %s got %q", node, said)
		}
	}
}

func TestPodsFindServicesByName(t *testing.T) {
	c := newCluster(t, "e2e-dns")
	c.web(2)
	c.kubectl("-n", "kube-system", "rollout", "status", "deployment/coredns", "--timeout=60s")
	c.kubectl("run", "ask", "--image="+c.image(), "--", "sleep", "1000")
	c.kubectl("wait", "--for=condition=Ready", "pod/ask", "--timeout=30s")
	for _, name := range []string{"web", "web.e2e-dns", "web.e2e-dns.svc.cluster.local"} {
		c.within(10*time.Second, "the service answers under the name "+name, func() error {
			if said := c.kubectl("exec", "ask", "--", "wget", "-qO-", "-T", "5", "http://"+name+"/hostname"); !strings.HasPrefix(said, "web-") {
				return fmt.Errorf("got %q", said)
			}
			return nil
		})
	}
	// The nslookup of busybox takes a name with a dot as it is, without the search list.
	if said := c.kubectl("exec", "ask", "--", "nslookup", "kubernetes.default.svc.cluster.local"); !strings.Contains(said, "Address: 10.96.0.1\n") && !strings.HasSuffix(said, "Address: 10.96.0.1") {
		t.Errorf("kubernetes.default is not 10.96.0.1: %s", said)
	}
}

func TestKilledDaemonsCarryOn(t *testing.T) {
	c := newCluster(t, "e2e-kill")
	urls := c.web(2)
	before := c.kubectl("get", "pods", "-o", "jsonpath={.items[*].status.containerStatuses[*].containerID}")
	for _, d := range []string{"etcd", "apiserver", "scheduler", "controller-manager", "kubelet-node1", "proxy-node1", "containerd-node1"} {
		c.control("kill", d)
		if err := answers(urls[0]); err != nil {
			t.Errorf("%s is dead and the pods noticed: %v", d, err)
		}
		c.control("start", d)
	}
	// The leases of the killed leaders run out first.
	c.within(40*time.Second, "the apiserver is back", func() error {
		return answers(urls[0])
	})
	time.Sleep(2 * time.Second)
	c.kubectl("scale", "deployment/web", "--replicas=4")
	c.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
	after := c.kubectl("get", "pods", "-o", "jsonpath={.items[*].status.containerStatuses[*].containerID}")
	for _, id := range strings.Fields(before) {
		if !strings.Contains(after, id) {
			t.Errorf("container %s did not live through it; now %s", id, after)
		}
	}
}
