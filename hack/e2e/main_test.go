//go:build e2e

// Package e2e drives the cluster of `make up` with stock kubectl, the way a user does, from the host.
//
// Tests run one after another on one shared cluster, each in a namespace of its own; whatever they wait for has a deadline.
package e2e

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// cluster is what a test talks to.
type cluster struct {
	t         *testing.T
	root      string
	namespace string
}

func newCluster(t *testing.T, namespace string) cluster {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	c := cluster{t, root, namespace}
	c.kubectl("create", "namespace", namespace)
	t.Cleanup(func() { c.kubectl("delete", "namespace", namespace, "--wait=false") })
	return c
}

// command is a command that talks to the cluster.
func (c cluster) command(args ...string) *exec.Cmd {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+filepath.Join(c.root, "_out/admin.kubeconfig"))
	return cmd
}

// run answers what a command says; its failure fails the test.
func (c cluster) run(args ...string) string {
	c.t.Helper()
	text, err := c.command(args...).CombinedOutput()
	if err != nil {
		c.t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, text)
	}
	return strings.TrimSpace(string(text))
}

func (c cluster) kubectlArgs(args ...string) []string {
	return append([]string{filepath.Join(c.root, "_out/tools/bin/kubectl"), "-n", c.namespace}, args...)
}

func (c cluster) kubectl(args ...string) string {
	c.t.Helper()
	return c.run(c.kubectlArgs(args...)...)
}

// image is the name of the image every node holds.
func (c cluster) image() string {
	c.t.Helper()
	return c.run("make", "-s", "-C", c.root, "print-test-image")
}

// control is a subcommand of hack/cluster: kill, start, cut, heal.
func (c cluster) control(verb, name string) {
	c.t.Helper()
	c.run(filepath.Join(c.root, "_out/tools/bin/cluster"), "-out", filepath.Join(c.root, "_out"), "-bin", filepath.Join(c.root, "bin"), verb, name)
}

// within fails the test unless the condition holds before the limit.
func (c cluster) within(limit time.Duration, what string, holds func() error) {
	c.t.Helper()
	deadline := time.Now().Add(limit)
	for {
		err := holds()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("%s: not within %s: %v", what, limit, err)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// answers asks a URL on a fresh connection.
func answers(url string) error {
	client := http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get(url)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err != nil || !strings.HasPrefix(string(body), "web-") {
		return fmt.Errorf("%s said %q, %v", url, body, err)
	}
	return nil
}

// web makes the deployment and its service, and answers the URLs at which they can be reached.
func (c cluster) web(replicas int) []string {
	c.t.Helper()
	c.kubectl("create", "deployment", "web", "--image="+c.image(), fmt.Sprintf("--replicas=%d", replicas), "--", "httpd", "-f", "-p", "80", "-h", "/etc")
	c.kubectl("expose", "deployment", "web", "--port=80", "--type=NodePort")
	c.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
	address := c.kubectl("get", "service", "web", "-o", "jsonpath={.spec.clusterIP} {.spec.ports[0].nodePort}")
	ip, port, _ := strings.Cut(address, " ")
	return []string{"http://" + ip + "/hostname", "http://10.89.0.11:" + port + "/hostname", "http://10.89.0.12:" + port + "/hostname"}
}
