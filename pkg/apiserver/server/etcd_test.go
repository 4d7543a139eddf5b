package server

import (
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"

	"github.com/sextant-k8s/sextant/hack/ports"
	"github.com/sextant-k8s/sextant/pkg/apiserver/rig"
)

// TestOwnEtcd runs servers with an etcd of their own, one after the other, in a folder that was made by an etcd on ports, whose
// path is relative and longer than a socket's may be. Of such a server nobody reaches more than its own port.
func TestOwnEtcd(t *testing.T) {
	t.Parallel()
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := filepath.Rel(here, filepath.Join(t.TempDir(), strings.Repeat("long", 50)))
	if err != nil {
		t.Fatal(err)
	}
	olderEtcd(t, filepath.Join(dir, "etcd"))
	for _, restart := range []bool{false, true} {
		p, c := rig.NewServer(t, "", "--data-dir="+dir)
		if restart {
			if code, _, b := c.Try(t, "GET", "/api/v1/namespaces/default/configmaps/kept", "", nil); code != http.StatusOK {
				t.Errorf("after a restart: %d %s", code, b)
			}
		} else if code, _, b := c.Try(t, "POST", "/api/v1/namespaces/default/configmaps", `{"metadata":{"name":"kept"}}`, nil); code != http.StatusCreated {
			t.Errorf("creating: %d %s", code, b)
		}
		at, err := url.Parse(c.URL)
		if err != nil {
			t.Fatal(err)
		}
		if got := listens(t, p.ID()); len(got) != 1 || got[0] != at.Port() {
			t.Errorf("it listens on the ports %v, want %s alone", got, at.Port())
		}
		p.Kill()
	}
}

// olderEtcd makes a folder of an etcd that listened on ports.
func olderEtcd(t *testing.T, dir string) {
	t.Helper()
	c := embed.NewConfig()
	c.Dir, c.Name, c.ZapLoggerBuilder = dir, "older", embed.NewZapLoggerBuilder(zap.NewNop())
	client, peer := url.URL{Scheme: "http", Host: fmt.Sprintf("127.0.0.1:%d", ports.Free(t))}, url.URL{Scheme: "http", Host: fmt.Sprintf("127.0.0.1:%d", ports.Free(t))}
	c.ListenClientUrls, c.AdvertiseClientUrls, c.ListenPeerUrls, c.AdvertisePeerUrls = []url.URL{client}, []url.URL{client}, []url.URL{peer}, []url.URL{peer}
	c.InitialCluster = c.InitialClusterFromName(c.Name)
	e, err := embed.StartEtcd(c)
	if err != nil {
		t.Fatal(err)
	}
	<-e.Server.ReadyNotify()
	e.Close()
}

// listens are the TCP ports on which a process listens.
func listens(t *testing.T, pid int) []string {
	t.Helper()
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil {
		t.Fatal(err)
	}
	own := map[string]bool{}
	for _, fd := range fds {
		if to, err := os.Readlink(fd); err == nil { // it may have been closed
			own[to] = true
		}
	}
	var out []string
	for _, table := range []string{"tcp", "tcp6"} {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", pid, table))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			f := strings.Fields(line)
			if f[3] != "0A" || !own["socket:["+f[9]+"]"] { // listening, of that inode
				continue
			}
			var port int
			if _, err := fmt.Sscanf(f[1][strings.LastIndexByte(f[1], ':')+1:], "%x", &port); err != nil {
				t.Fatal(err)
			}
			out = append(out, fmt.Sprint(port))
		}
	}
	return out
}

// TestOwnEtcdTwice starts a second server in the folder of one that runs: it says so, and the first is none the worse.
func TestOwnEtcdTwice(t *testing.T) {
	t.Parallel()
	var dir string
	s := start(t, func(c *Config) { dir = c.DataDir })
	c := *s.c
	c.SecurePort = ports.Free(t)
	if second, err := New(t.Context(), &c); err == nil {
		second.Close()
		t.Fatal("a second server took the folder")
	} else if want := "--data-dir " + dir + " is in use by another apiserver"; !strings.Contains(err.Error(), want) {
		t.Errorf("it said %q, want %q", err, want)
	}
	// What connects anew finds the same etcd.
	own := embedded{dir: filepath.Join(dir, "etcd")}
	var err error
	if own.open, err = os.Open(own.dir); err != nil {
		t.Fatal(err)
	}
	defer own.leave()
	conn, err := own.dial(t.Context(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close() // nothing was said
	if code, _, b := s.Try(t, "POST", "/api/v1/namespaces/default/configmaps", `{"metadata":{"name":"a"}}`, nil); code != http.StatusCreated {
		t.Errorf("the first server: %d %s", code, b)
	}
}
