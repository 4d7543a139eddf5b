//go:build e2e

package e2e

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// killMarked kills the shell whose script bears the mark, which is a container's first process.
func killMarked(mark string) error {
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return err
	}
	for _, l := range lines {
		if args, err := os.ReadFile(l); err == nil && bytes.HasPrefix(args, []byte("sh\x00-c\x00")) && bytes.Contains(args, []byte("# "+mark)) {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(l)))
			if err != nil {
				return err
			}
			return syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	return fmt.Errorf("no container runs a script marked %s", mark)
}

func TestKilledContainerRestarts(t *testing.T) {
	c := newCluster(t, "e2e-restart")
	c.box("box", "while :; do sleep 1; done # e2e-restart-me")
	if n := c.kubectl("get", "pod", "box", "-o", "jsonpath={.status.containerStatuses[0].restartCount}"); n != "0" {
		t.Fatalf("restarted %s times before it was killed", n)
	}
	if err := killMarked("e2e-restart-me"); err != nil {
		t.Fatal(err)
	}
	c.within(30*time.Second, "the container runs again", func() error {
		got := c.kubectl("get", "pod", "box", "-o", "jsonpath={.status.containerStatuses[0].restartCount} {.status.containerStatuses[0].ready} {.status.containerStatuses[0].lastState.terminated.exitCode}")
		if got != "1 true 137" {
			return fmt.Errorf("restarts, ready, exit code: %s", got)
		}
		return nil
	})
}

func TestDeletedPodsAreReplaced(t *testing.T) {
	c := newCluster(t, "e2e-replace")
	urls := c.web(2)
	old := strings.Fields(c.kubectl("get", "pods", "-o", "jsonpath={.items[*].metadata.uid}"))
	c.kubectl("delete", "pods", "--all", "--grace-period=1")
	c.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
	now := c.kubectl("get", "pods", "-o", `jsonpath={range .items[*]}{.metadata.uid} {.status.phase}{"\n"}{end}`)
	for _, uid := range old {
		if strings.Contains(now, uid) {
			t.Errorf("pod %s was deleted and is still there: %s", uid, now)
		}
	}
	if n := strings.Count(now, "Running"); n != 2 {
		t.Errorf("%d of 2 pods run: %s", n, now)
	}
	for _, u := range urls {
		c.within(10*time.Second, "the new pods answer", func() error { return answers(u) })
	}
}

func TestPodsLeaveACutNode(t *testing.T) {
	c := newCluster(t, "e2e-cut")
	urls := c.web(0)
	c.kubectl("patch", "deployment", "web", "-p", `{"spec":{"replicas":4,"template":{"spec":{"terminationGracePeriodSeconds":1,"tolerations":[
		{"key":"node.kubernetes.io/unreachable","operator":"Exists","effect":"NoExecute","tolerationSeconds":3},
		{"key":"node.kubernetes.io/not-ready","operator":"Exists","effect":"NoExecute","tolerationSeconds":3}]}}}}`)
	c.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
	old := strings.Fields(c.kubectl("get", "pods", "--field-selector=spec.nodeName=node2", "-o", "jsonpath={.items[*].metadata.name}"))
	if len(old) == 0 {
		t.Fatal("no pod is on the node to be cut")
	}
	c.control("cut", "node2")
	healed := false
	heal := func() {
		if !healed {
			c.control("heal", "node2")
			c.kubectl("wait", "--for=condition=Ready", "node/node2", "--timeout=60s")
			healed = true
		}
	}
	defer heal()
	c.within(40*time.Second, "the silent node is not ready", func() error {
		if got := c.kubectl("get", "node", "node2"); !strings.Contains(got, "NotReady") {
			return fmt.Errorf("%s", got)
		}
		return nil
	})
	if got := c.kubectl("get", "node", "node2", "-o", `jsonpath={.status.conditions[?(@.type=="Ready")].status} {.status.conditions[?(@.type=="Ready")].reason}`); got != "Unknown NodeStatusUnknown" {
		t.Errorf("a node that says nothing has Ready %s", got)
	}
	c.within(90*time.Second, "all replicas run where they can", func() error {
		pods := c.kubectl("get", "pods", "-o", `jsonpath={range .items[*]}{.spec.nodeName}/{.status.conditions[?(@.type=="Ready")].status} {end}`)
		if n := strings.Count(pods, "/True") - strings.Count(pods, "node2/True"); n != 4 {
			return fmt.Errorf("%d of 4: %s", n, pods)
		}
		return nil
	})
	c.within(10*time.Second, "they answer", func() error { return answers(urls[0]) })
	if taints := c.kubectl("get", "node", "node2", "-o", "jsonpath={.spec.taints[*].key}/{.spec.taints[*].effect}"); !strings.Contains(taints, "node.kubernetes.io/unreachable") || !strings.Contains(taints, "NoExecute") {
		t.Errorf("the cut node has taints %s", taints)
	}
	if going := c.kubectl("get", "pods"); strings.Count(going, "Terminating") != len(old) {
		t.Errorf("%v cannot end while nobody tells so, and should be Terminating: %s", old, going)
	}
	heal()
	c.within(60*time.Second, "its old pods are gone", func() error {
		pods := c.kubectl("get", "pods", "-o", "name")
		for _, name := range old {
			if strings.Contains(pods, name) {
				return fmt.Errorf("%s is still there", name)
			}
		}
		return nil
	})
	c.within(30*time.Second, "the taints are gone", func() error {
		if taints := c.kubectl("get", "node", "node2", "-o", "jsonpath={.spec.taints}"); taints != "" {
			return fmt.Errorf("%s", taints)
		}
		return nil
	})
	for _, u := range urls {
		c.within(20*time.Second, u+" answers again", func() error { return answers(u) })
	}
	c.on("node2", "again", "sleep 1000")
}
