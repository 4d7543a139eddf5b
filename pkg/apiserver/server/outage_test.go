package server

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// etcdEnv makes this test's own binary an etcd, so that there is a real process to kill: "folder client-url peer-url".
const etcdEnv = "SEXTANT_TEST_ETCD"

func TestMain(m *testing.M) {
	if args := os.Getenv(etcdEnv); args != "" {
		if err := beEtcd(strings.Fields(args)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func beEtcd(args []string) error {
	c := embed.NewConfig()
	c.Dir, c.Name, c.LogLevel = args[0], "test", "error"
	client, err := url.Parse(args[1])
	if err != nil {
		return err
	}
	peer, err := url.Parse(args[2])
	if err != nil {
		return err
	}
	c.ListenClientUrls, c.AdvertiseClientUrls, c.ListenPeerUrls, c.AdvertisePeerUrls = []url.URL{*client}, []url.URL{*client}, []url.URL{*peer}, []url.URL{*peer}
	c.InitialCluster = c.InitialClusterFromName(c.Name)
	e, err := embed.StartEtcd(c)
	if err != nil {
		return err
	}
	return <-e.Err()
}

// etcd is a process of its own.
type etcd struct {
	args []string
	cmd  *exec.Cmd
}

func newEtcd(t *testing.T) *etcd {
	t.Helper()
	at := func() string { return fmt.Sprintf("http://127.0.0.1:%d", freePort(t)) }
	e := &etcd{args: []string{t.TempDir(), at(), at()}}
	e.start(t)
	t.Cleanup(e.kill)
	return e
}

func (e *etcd) start(t *testing.T) {
	t.Helper()
	e.cmd = exec.Command(os.Args[0])
	e.cmd.Env = append(os.Environ(), etcdEnv+"="+strings.Join(e.args, " "))
	e.cmd.Stderr = os.Stderr
	e.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := e.cmd.Start(); err != nil {
		t.Fatal(err)
	}
}

func (e *etcd) kill() {
	_ = e.cmd.Process.Kill() // it may have ended
	_ = e.cmd.Wait()         // killed is what it was to be
}

// TestEtcdGone kills etcd under a running server and starts it again.
func TestEtcdGone(t *testing.T) {
	db := newEtcd(t)
	s := start(t, func(c *Config) { c.EtcdServers = db.args[1:2] })
	const path = "/api/v1/namespaces/default/configmaps"
	for n := range 20 {
		s.must(t, "POST", path, fmt.Sprintf(`{"metadata":{"name":"before-%d"}}`, n))
	}
	told := s.follow(t, path+"?watch=1&resourceVersion=0")
	told.await(t, "before-19")
	s.must(t, "GET", path, "")
	routines := runtime.NumGoroutine()

	db.kill()
	t.Run("what needs no etcd goes on", func(t *testing.T) {
		for _, p := range []string{path + "?resourceVersion=0", path + "/before-3?resourceVersion=0", "/api", "/version", "/openapi/v2", "/metrics"} {
			begun := time.Now()
			if code, _, b := s.try(t, "GET", p, "", nil); code != http.StatusOK || time.Since(begun) > 5*time.Second {
				t.Errorf("%s: %d after %v: %.200s", p, code, time.Since(begun), b)
			}
		}
		s.follow(t, path+"?watch=1&resourceVersion=0").await(t, "before-19")
	})
	t.Run("what needs it fails in time", func(t *testing.T) {
		var wg sync.WaitGroup
		for n := range 40 {
			wg.Go(func() {
				begun := time.Now()
				req := [][3]string{{"GET", path + "/before-1"}, {"GET", path}, {"POST", path, fmt.Sprintf(`{"metadata":{"name":"lost-%d"}}`, n)},
					{"DELETE", path + "/before-2"}, {"PUT", path + "/before-5", `{"metadata":{"name":"before-5"},"data":{"a":"b"}}`}}[n%5]
				code, _, b := s.try(t, req[0], req[1], req[2], nil)
				var status metav1.Status
				if err := json.Unmarshal(b, &status); err != nil || code != 500 && code != 503 && code != 504 || int(status.Code) != code || status.Status != metav1.StatusFailure || status.Message == "" {
					t.Errorf("%s %s: %d %s", req[0], req[1], code, b)
				}
				if took := time.Since(begun); took > 9*time.Second {
					t.Errorf("%s %s took %v", req[0], req[1], took)
				}
			})
		}
		wg.Wait()
	})
	t.Run("health says so", func(t *testing.T) {
		var wg sync.WaitGroup
		for _, p := range []string{"/readyz", "/livez", "/healthz"} {
			wg.Go(func() {
				if code, _, b := s.try(t, "GET", p+"?verbose", "", nil); code != 500 || !strings.Contains(string(b), "[-]etcd failed: reason withheld") || !strings.Contains(string(b), "[+]ping ok") {
					t.Errorf("%s: %d %s", p, code, b)
				}
			})
			wg.Go(func() {
				if code, _, b := s.try(t, "GET", p+"?exclude=etcd&exclude=etcd-readiness", "", nil); code != 200 {
					t.Errorf("%s without etcd: %d %s", p, code, b)
				}
			})
		}
		wg.Wait()
	})
	t.Run("waiting costs nothing", func(t *testing.T) {
		before := ownCPU(t)
		time.Sleep(2 * time.Second)
		if used := ownCPU(t) - before; used > 400*time.Millisecond {
			t.Errorf("2 s without etcd took %v of CPU", used)
		}
	})

	db.start(t)
	s.await(t, "GET", path+"/before-1", "", 30*time.Second)
	s.must(t, "POST", path, `{"metadata":{"name":"after"}}`)
	told.await(t, "after")
	var list struct {
		Items []metav1.PartialObjectMetadata
	}
	if err := json.Unmarshal(s.must(t, "GET", path, ""), &list); err != nil {
		t.Fatal(err)
	}
	there := map[string]bool{}
	for _, i := range list.Items {
		there[i.Name] = true
	}
	for n := range 20 {
		if name := fmt.Sprint("before-", n); !there[name] && n != 2 {
			t.Errorf("%s is lost", name)
		}
	}
	s.await(t, "GET", "/readyz", "", 10*time.Second)
	deadline := time.Now().Add(15 * time.Second)
	for runtime.NumGoroutine() > routines+15 {
		if time.Now().After(deadline) {
			buf := make([]byte, 1<<20)
			t.Fatalf("there were %d goroutines and are %d:\n%s", routines, runtime.NumGoroutine(), buf[:runtime.Stack(buf, true)])
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// TestEtcdWentBack puts an etcd in the place of the one that was followed which knows less.
func TestEtcdWentBack(t *testing.T) {
	t.Parallel()
	db := newEtcd(t)
	s := start(t, func(c *Config) { c.EtcdServers = db.args[1:2] })
	const path = "/api/v1/namespaces/default/configmaps"
	for n := range 50 {
		s.must(t, "POST", path, fmt.Sprintf(`{"metadata":{"name":"c-%d"}}`, n))
	}
	told := s.follow(t, path+"?watch=1&resourceVersion=0")
	told.await(t, "c-49")
	db.kill()
	db.args[0] = t.TempDir()
	db.start(t)
	told.ends(t)
	deadline := time.Now().Add(30 * time.Second)
	for {
		code, _, b := s.try(t, "GET", path, "", nil)
		if code == http.StatusOK && !strings.Contains(string(b), "c-49") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("after 30 s the server still shows %d %s", code, b)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func ownCPU(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// await makes a request until it succeeds.
func (s *testServer) await(t *testing.T, method, path, body string, most time.Duration) {
	t.Helper()
	deadline := time.Now().Add(most)
	for {
		code, _, b := s.try(t, method, path, body, nil)
		if code < 300 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s %s after %v: %d %s", method, path, most, code, b)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// events is a watch being read: the names it told, in order.
type events struct {
	mu    sync.Mutex
	names []string
	over  chan struct{}
}

// follow opens a watch that lasts as long as the test.
func (s *testServer) follow(t *testing.T, path string) *events {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, "GET", s.url+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+adminToken)
	resp, err := s.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	e := &events{over: make(chan struct{})}
	go func() {
		defer close(e.over)
		defer resp.Body.Close() //nolint:errcheck // only read
		for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
			var ev struct{ Object metav1.PartialObjectMetadata }
			if json.Unmarshal(lines.Bytes(), &ev) == nil {
				e.mu.Lock()
				e.names = append(e.names, ev.Object.Name)
				e.mu.Unlock()
			}
		}
	}()
	return e
}

// await waits until the watch told of an object.
func (e *events) await(t *testing.T, name string) {
	t.Helper()
	deadline := time.Now().Add(15 * time.Second)
	for {
		e.mu.Lock()
		names := strings.Join(e.names, " ")
		e.mu.Unlock()
		if strings.Contains(" "+names+" ", " "+name+" ") {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the watch did not tell of %s but of %s", name, names)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// ends waits until the server has ended the watch.
func (e *events) ends(t *testing.T) {
	t.Helper()
	select {
	case <-e.over:
	case <-time.After(30 * time.Second):
		t.Fatal("the watch goes on")
	}
}
