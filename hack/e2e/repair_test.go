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

func TestKilledContainerRestarts(t *testing.T) {
	c := newCluster(t, "e2e-restart")
	c.box("box", "while :; do sleep 1; done # e2e-restart-me")
	if n := c.kubectl("get", "pod", "box", "-o", "jsonpath={.status.containerStatuses[0].restartCount}"); n != "0" {
		t.Fatalf("restarted %s times before it was killed", n)
	}
	killed := false
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range lines {
		if args, err := os.ReadFile(l); err == nil && bytes.HasPrefix(args, []byte("sh\x00-c\x00")) && bytes.Contains(args, []byte("# e2e-restart-me")) {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(l)))
			if err != nil {
				t.Fatal(err)
			}
			killed = syscall.Kill(pid, syscall.SIGKILL) == nil
		}
	}
	if !killed {
		t.Fatal("the container's process was not found")
	}
	c.within(30*time.Second, "the container runs again", func() error {
		got := c.kubectl("get", "pod", "box", "-o", "jsonpath={.status.containerStatuses[0].restartCount} {.status.containerStatuses[0].ready} {.status.containerStatuses[0].lastState.terminated.exitCode}")
		if got != "1 true 137" {
			return fmt.Errorf("restarts, ready, exit code: %s", got)
		}
		return nil
	})
}

func TestPodsLeaveACutNode(t *testing.T) {
	c := newCluster(t, "e2e-cut")
	c.web(4)
	c.kubectl("patch", "deployment", "web", "-p", `{"spec":{"template":{"spec":{"tolerations":[
		{"key":"node.kubernetes.io/unreachable","operator":"Exists","effect":"NoExecute","tolerationSeconds":3},
		{"key":"node.kubernetes.io/not-ready","operator":"Exists","effect":"NoExecute","tolerationSeconds":3}]}}}}`)
	c.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
	if on := c.kubectl("get", "pods", "-o", "jsonpath={.items[*].spec.nodeName}"); !strings.Contains(on, "node2") {
		t.Fatalf("no pod is on the node to be cut: %s", on)
	}
	c.control("cut", "node2")
	defer func() {
		c.control("heal", "node2")
		c.kubectl("wait", "--for=condition=Ready", "node/node2", "--timeout=60s")
	}()
	c.within(30*time.Second, "the silent node is not ready", func() error {
		if got := c.kubectl("get", "node", "node2", "-o", `jsonpath={.status.conditions[?(@.type=="Ready")].status}`); got != "Unknown" {
			return fmt.Errorf("ready is %s", got)
		}
		return nil
	})
	c.within(90*time.Second, "all replicas run on the node that is left", func() error {
		pods := c.kubectl("get", "pods", "-o", `jsonpath={range .items[*]}{.spec.nodeName}/{.status.conditions[?(@.type=="Ready")].status} {end}`)
		if n := strings.Count(pods, "node1/True"); n != 4 {
			return fmt.Errorf("%d of 4: %s", n, pods)
		}
		return nil
	})
}
