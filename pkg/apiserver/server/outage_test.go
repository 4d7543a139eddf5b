package server

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spf13/pflag"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sextant-k8s/sextant/pkg/apiserver/rig"
)

func TestMain(m *testing.M) { rig.Main(m, "6", serve) }

func serve(f *pflag.FlagSet) func(context.Context) error {
	c := &Config{Version: "v0.0.0-test"}
	c.AddFlags(f)
	return func(ctx context.Context) error {
		s, err := New(ctx, c)
		if err != nil {
			return err
		}
		return s.Run(ctx)
	}
}

// routines is how many goroutines the server has.
func (s *testServer) routines(t *testing.T) (n int, all string) {
	t.Helper()
	all = string(s.Must(t, "GET", "/debug/pprof/goroutine?debug=1", ""))
	if _, err := fmt.Sscanf(all, "goroutine profile: total %d", &n); err != nil {
		t.Fatal(err)
	}
	return n, all
}

// settled is how many goroutines the server has once all that it begins with is under way: their number rises no more.
func (s *testServer) settled(t *testing.T) int {
	t.Helper()
	most, _ := s.routines(t)
	for since := time.Now(); time.Since(since) < 2*time.Second; time.Sleep(100 * time.Millisecond) {
		if n, _ := s.routines(t); n > most {
			most, since = n, time.Now()
		}
	}
	return most
}

// cpuOf is the CPU time that a process has used.
func cpuOf(t *testing.T, pid int) time.Duration {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	user, _ := strconv.Atoi(f[11])
	system, _ := strconv.Atoi(f[12])
	return time.Duration(user+system) * 10 * time.Millisecond
}

// TestEtcdGone kills etcd under a running server and starts it again.
func TestEtcdGone(t *testing.T) {
	t.Parallel()
	db, at := rig.NewEtcd(t)
	p, api := rig.NewServer(t, at)
	s, pid := &testServer{Client: api}, p.ID()
	const path = "/api/v1/namespaces/default/configmaps"
	for n := range 20 {
		s.Must(t, "POST", path, fmt.Sprintf(`{"metadata":{"name":"before-%d"}}`, n))
	}
	told := s.follow(t, path+"?watch=1&resourceVersion=0")
	told.await(t, "before-19")
	s.Must(t, "GET", path, "")
	routines := s.settled(t)

	db.Kill()
	t.Run("what needs no etcd goes on", func(t *testing.T) {
		for _, p := range []string{path + "?resourceVersion=0", path + "/before-3?resourceVersion=0", "/api", "/version", "/openapi/v2", "/metrics"} {
			begun := time.Now()
			if code, _, b := s.Try(t, "GET", p, "", nil); code != http.StatusOK || time.Since(begun) > 5*time.Second {
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
				code, _, b := s.Try(t, req[0], req[1], req[2], nil)
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
				if code, _, b := s.Try(t, "GET", p+"?verbose", "", nil); code != 500 || !strings.Contains(string(b), "[-]etcd failed: reason withheld") || !strings.Contains(string(b), "[+]ping ok") {
					t.Errorf("%s: %d %s", p, code, b)
				}
			})
			wg.Go(func() {
				if code, _, b := s.Try(t, "GET", p+"?exclude=etcd&exclude=etcd-readiness", "", nil); code != 200 {
					t.Errorf("%s without etcd: %d %s", p, code, b)
				}
			})
		}
		wg.Wait()
	})
	t.Run("waiting costs nothing", func(t *testing.T) {
		before := cpuOf(t, pid)
		time.Sleep(2 * time.Second)
		if used := cpuOf(t, pid) - before; used > 200*time.Millisecond {
			t.Errorf("2 s without etcd took %v of CPU", used)
		}
	})

	db.Start(t)
	s.await(t, "GET", path+"/before-1", "", 30*time.Second)
	s.Must(t, "POST", path, `{"metadata":{"name":"after"}}`)
	told.await(t, "after")
	var list struct {
		Items []metav1.PartialObjectMetadata
	}
	if err := json.Unmarshal(s.Must(t, "GET", path, ""), &list); err != nil {
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
	for {
		now, all := s.routines(t)
		if now <= routines+10 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("there were %d goroutines and are %d:\n%s", routines, now, all)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// TestEtcdWentBack puts an etcd in the place of the one that was followed which knows less.
func TestEtcdWentBack(t *testing.T) {
	t.Parallel()
	db, at := rig.NewEtcd(t)
	s := start(t, func(c *Config) { c.EtcdServers = []string{at} })
	const path = "/api/v1/namespaces/default/configmaps"
	for n := range 50 {
		s.Must(t, "POST", path, fmt.Sprintf(`{"metadata":{"name":"c-%d"}}`, n))
	}
	told := s.follow(t, path+"?watch=1&resourceVersion=0")
	told.await(t, "c-49")
	db.Kill()
	db.Forget(t)
	db.Start(t)
	told.ends(t)
	deadline := time.Now().Add(30 * time.Second)
	for {
		code, _, b := s.Try(t, "GET", path, "", nil)
		if code == http.StatusOK && !strings.Contains(string(b), "c-49") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("after 30 s the server still shows %d %s", code, b)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// await makes a request until it succeeds.
func (s *testServer) await(t *testing.T, method, path, body string, most time.Duration) {
	t.Helper()
	deadline := time.Now().Add(most)
	for {
		code, _, b := s.Try(t, method, path, body, nil)
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
	req, err := http.NewRequestWithContext(ctx, "GET", s.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+rig.AdminToken)
	resp, err := s.HTTP.Do(req)
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
