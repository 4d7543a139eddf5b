//go:build e2e

// Package e2e drives the cluster of `make up` the way a user does, from the host, with stock kubectl and with ctl.
//
// It is made of groups, each a file; a group leaves the cluster as it found it:
//
//	network_test.go  a deployment answers through its service, from everywhere (TestWeb)
//	verbs_test.go    every verb of the client, as scripts in testdata/verbs, all at once (TestVerbs); those that
//	                 change nodes are in testdata/nodes and run one after another (TestNodeVerbs)
//	bare_test.go     load balancers and claims where there is no cloud
//	scheduling_test.go  where pods go and why they wait, as scripts in testdata/scheduling, all at once (TestScheduling)
//	repair_test.go   killed containers, deleted pods, a node cut off the network
//	daemons_test.go  each daemon killed with -9 and started again, under traffic
//	etcd_test.go     what is served while etcd is gone, and that nothing is lost
//	guest_test.go    a cluster of its own whose proxies run IPVS, then another mode, then IPVS; run by make guest (TestGuest)
//	stock_test.go    programs of others, as published, in testdata/stock; run by make stock (TestStock)
//	conformance/     a package of its own, run after the others: the behaviours of the published conformance list
//
// Only tests that keep to a namespace of their own run beside each other, inside their group. Whatever is waited for has
// a deadline, and a test that fails tells what stood in its namespace and what the daemons said last.
package e2e

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// commandLimit is how long one command of a user may take before it counts as hung.
const commandLimit = 90 * time.Second

var (
	root     = absolute("../..")
	cacheDir string
	// slower is how many times longer than usual things may take.
	slower time.Duration = 1
)

func absolute(path string) string {
	abs, err := filepath.Abs(path)
	if err != nil {
		panic(err) // the working directory is gone
	}
	return abs
}

// TestMain lets more tests run at once than there are cores: they mostly wait for the cluster.
func TestMain(m *testing.M) {
	flag.Parse()
	parallel := true
	flag.Visit(func(f *flag.Flag) { parallel = parallel && f.Name != "test.parallel" })
	var err error
	if parallel {
		err = flag.Set("test.parallel", "8")
	}
	if err == nil {
		cacheDir, err = os.MkdirTemp("", "sextant-e2e-")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		os.Exit(1)
	}
	code := m.Run()
	_ = os.RemoveAll(cacheDir)
	os.Exit(code)
}

// client is a program a user may drive a cluster with.
type client struct{ name, path string }

// kubectl and ctl must do the same.
var (
	kubectl = client{"kubectl", filepath.Join(root, "_out/tools/bin/kubectl")}
	ctl     = client{"ctl", filepath.Join(root, "bin/ctl")}
)

// eachClient runs a test once with either client, one after the other.
func eachClient(t *testing.T, test func(t *testing.T, with client)) {
	for _, with := range []client{kubectl, ctl} {
		t.Run(with.name, func(t *testing.T) { test(t, with) })
	}
}

// cluster is what a test talks to: a namespace, through one client.
type cluster struct {
	t         *testing.T
	root      string
	namespace string
	client    client
}

// newCluster makes a namespace, driven with stock kubectl.
func newCluster(t *testing.T, namespace string) cluster {
	t.Helper()
	return newClusterWith(t, kubectl, namespace)
}

func newClusterWith(t *testing.T, with client, namespace string) cluster {
	t.Helper()
	c := cluster{t, root, namespace, with}
	if err := makeNamespace(namespace); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { leaveNamespace(t, namespace) })
	return c
}

// makeNamespace makes one that pods can be created in: their service account is there.
func makeNamespace(name string) error {
	for _, args := range [][]string{{"create", "namespace", name}, {"-n", name, "wait", "--for=create", "serviceaccount/default", "--timeout=30s"}} {
		if text, err := command(commandLimit, append([]string{kubectl.path}, args...)...).CombinedOutput(); err != nil {
			return fmt.Errorf("%v: %w\n%s", args, err, text)
		}
	}
	return nil
}

// leaveNamespace deletes the namespace of a test, after telling what stands in it if the test failed. Its pods are given a
// second, so that the next tests find the machine idle.
func leaveNamespace(t testing.TB, name string) {
	if t.Failed() {
		t.Log(account(name))
	}
	for _, args := range [][]string{{"-n", name, "delete", "pods", "--all", "--grace-period=1", "--wait=false"}, {"delete", "namespace", name, "--wait=false"}} {
		if text, err := command(commandLimit, append([]string{kubectl.path}, args...)...).CombinedOutput(); err != nil {
			t.Errorf("%v: %v\n%s", args, err, text)
		}
	}
}

// environment is that of every command: the administrator's, and no file of whoever runs the tests.
func environment() []string {
	return append(os.Environ(), "KUBECONFIG="+filepath.Join(root, "_out/admin.kubeconfig"), "KUBECACHEDIR="+cacheDir, "KUBERC=off")
}

// command is a command that talks to the cluster; it is killed at the limit.
func command(limit time.Duration, args ...string) *exec.Cmd {
	ctx, cancel := context.WithTimeout(context.Background(), limit*slower)
	context.AfterFunc(ctx, cancel)
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = environment()
	cmd.WaitDelay = time.Second
	return cmd
}

// command is a command that talks to the cluster, for tests that do more with it than read what it says.
func (c cluster) command(args ...string) *exec.Cmd { return command(commandLimit, args...) }

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
	return append([]string{c.client.path, "-n", c.namespace}, args...)
}

// kubectl runs the client in the namespace.
func (c cluster) kubectl(args ...string) string {
	c.t.Helper()
	return c.run(c.kubectlArgs(args...)...)
}

// tries runs the client in the namespace where it may fail: while a daemon is dead, or until something is there.
func (c cluster) tries(limit time.Duration, args ...string) (string, error) {
	text, err := command(limit, c.kubectlArgs(args...)...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, text)
	}
	return strings.TrimSpace(string(text)), err
}

// printed answers what the Makefile says an image is called.
func printed(target string) func() (string, error) {
	return sync.OnceValues(func() (string, error) {
		text, err := exec.Command("make", "-s", "--no-print-directory", "-C", root, target).Output()
		return strings.TrimSpace(string(text)), err
	})
}

var testImage, pauseImage = printed("print-test-image"), printed("print-pause-image")

// image is the name of the busybox image every node holds.
func (c cluster) image() string {
	c.t.Helper()
	name, err := testImage()
	if err != nil {
		c.t.Fatal(err)
	}
	return name
}

// control is a subcommand of hack/cluster: kill, start, cut, heal.
func (c cluster) control(verb, name string) {
	c.t.Helper()
	c.run(filepath.Join(root, "_out/tools/bin/cluster"), "-out", filepath.Join(root, "_out"), "-bin", filepath.Join(root, "bin"), verb, name)
}

// within fails the test unless the condition holds before the limit.
func (c cluster) within(limit time.Duration, what string, holds func() error) {
	c.t.Helper()
	deadline := time.Now().Add(limit * slower)
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

// box starts a pod with a shell command.
func (c cluster) box(name, script string, more ...string) {
	c.t.Helper()
	c.kubectl(append(append([]string{"run", name, "--image=" + c.image()}, more...), "--", "sh", "-c", script)...)
	c.kubectl("wait", "--for=condition=Ready", "pod/"+name, "--timeout="+(30*time.Second*slower).String())
}
