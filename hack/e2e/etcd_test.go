//go:build e2e

package e2e

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	// writeLimit is how long a write may take to say that it cannot be done.
	writeLimit = 15 * time.Second
	// silence is how long etcd stays away: longer than the leaders' leases last.
	silence = 20 * time.Second
)

// lockedBuffer is written by a command and read by a test.
type lockedBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// TestEtcdGone keeps etcd dead for a while: what may be read from the cache is, writes are refused with an error within a
// bound, pods are not disturbed; then it comes back, nothing is lost, and nobody else is started again.
func TestEtcdGone(t *testing.T) {
	c := newCluster(t, "e2e-etcd")
	urls := c.web(4)
	c.kubectl("create", "configmap", "before", "--from-literal=a=1")
	for _, u := range urls {
		c.within(10*time.Second, u+" answers", func() error { return answers(u) })
	}
	containers := c.containers()
	var seen lockedBuffer
	watch := c.command(c.kubectlArgs("get", "configmap", "before", "-w", "-o", "jsonpath={.data.a};")...)
	watch.Stdout = &seen
	if err := watch.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = watch.Process.Kill(); _ = watch.Wait() }()
	c.within(10*time.Second, "the watch begins", func() error { return says(&seen, "1;") })
	requests := watchTraffic(urls)

	running := daemons(t)
	c.control("kill", "etcd")
	killed := time.Now()
	started := false
	start := func() {
		if !started {
			c.control("start", "etcd")
			started = true
		}
	}
	defer start()
	t.Run("reads from the cache", func(t *testing.T) {
		c := c.of(t)
		for path, want := range map[string]string{
			"/api/v1/namespaces/" + c.namespace + "/configmaps?resourceVersion=0":        `"name":"before"`,
			"/api/v1/namespaces/" + c.namespace + "/configmaps/before?resourceVersion=0": `"a":"1"`,
			"/livez?exclude=etcd": "ok",
			"/version":            "v1.37",
			"/apis/apps/v1":       "deployments",
		} {
			said, err := c.tries(10*time.Second, "get", "--raw", path)
			if err != nil || !strings.Contains(strings.ReplaceAll(said, `": "`, `":"`), want) {
				t.Errorf("%s: %v: %s", path, err, said)
			}
		}
		if said, err := c.tries(20*time.Second, "get", "--raw", "/readyz"); err == nil || !strings.Contains(said, "etcd") {
			t.Errorf("ready without etcd: %v: %s", err, said)
		}
	})
	t.Run("writes and fresh reads", func(t *testing.T) {
		for _, args := range [][]string{
			{"create", "configmap", "during"},
			{"patch", "configmap", "before", "-p", `{"data":{"a":"2"}}`},
			{"delete", "configmap", "before"},
			{"get", "configmaps"},
		} {
			t.Run(args[0], func(t *testing.T) {
				t.Parallel()
				c, begun := c.of(t), time.Now()
				said, err := c.tries(writeLimit+10*time.Second, args...)
				took := time.Since(begun)
				t.Logf("%v took %s: %s", args, took.Round(time.Millisecond), said)
				if err == nil {
					t.Fatalf("%v without etcd: %s", args, said)
				}
				if took > writeLimit {
					t.Errorf("%v took %s", args, took)
				}
				if !strings.Contains(said, "Error from server") && !strings.Contains(said, "error: failed to create") {
					t.Errorf("%v is not told as the server's error: %s", args, said)
				}
			})
		}
	})
	time.Sleep(silence - time.Since(killed))
	requests.flows(c, "etcd is dead")
	start()
	c.within(30*time.Second, "writing works again", func() error {
		_, err := c.tries(10*time.Second, "patch", "configmap", "before", "-p", `{"data":{"a":"3"}}`)
		return err
	})
	c.within(20*time.Second, "the watch of before goes on", func() error { return says(&seen, "1;3;") })
	if got := c.kubectl("get", "configmap", "before", "-o", "jsonpath={.data.a}"); got != "3" {
		t.Errorf("what was written is lost: %q", got)
	}
	t.Run("all work again", func(t *testing.T) { serves(c.of(t)) })
	if now := daemons(t); now != running {
		t.Errorf("daemons were started again, or ended:\n%s\nbefore:\n%s", now, running)
	}
	if after := c.containers(); after != containers {
		t.Errorf("containers changed:\n%s\nbefore:\n%s", after, containers)
	}
	requests.end(t)
}

// daemons are the processes of all daemons but etcd.
func daemons(t *testing.T) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, "_out/run/*.pid"))
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, f := range files {
		if filepath.Base(f) == "etcd.pid" {
			continue
		}
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		pid, _, _ := strings.Cut(string(data), " ")
		stat, err := os.ReadFile("/proc/" + pid + "/stat")
		state := "gone"
		if err == nil && !strings.Contains(string(stat), ") Z ") {
			state = "runs"
		}
		fmt.Fprintln(&all, filepath.Base(f), pid, state)
	}
	return all.String()
}

// says fails unless all that was written is this.
func says(b *lockedBuffer, want string) error {
	if got := b.String(); got != want {
		return fmt.Errorf("got %q", got)
	}
	return nil
}
