// Package rig is what tests of whole servers stand on: servers and etcds as processes that can be killed, and a client.
//
// The flow: a package's TestMain calls Main, which makes the test's own binary an etcd or a server where it was started as
// one, and runs the tests otherwise. How a server is run is handed in, so that the server's own tests can use this too.
// A Process belongs to the test that started it; a Client may be used from many goroutines.
package rig

import (
	"context"
	"flag"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/pflag"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"

	"github.com/sextant-k8s/sextant/hack/ports"
)

// These say what the test's own binary is: an etcd ("folder client-url peer-url"), or a server (its flags).
const (
	etcdEnv   = "SEXTANT_RIG_ETCD"
	serverEnv = "SEXTANT_RIG_SERVER"
)

// Main is a TestMain: it runs the tests, so many at once, or what this process was started as. serve adds a server's flags and
// answers what runs it once they are parsed. Main does not return.
func Main(m *testing.M, parallel string, serve func(*pflag.FlagSet) func(context.Context) error) {
	beServer := func(args []string) error {
		f := pflag.NewFlagSet("test", pflag.ContinueOnError)
		run := serve(f)
		if err := f.Parse(args); err != nil {
			return err
		}
		return run(context.Background())
	}
	for env, be := range map[string]func([]string) error{etcdEnv: beEtcd, serverEnv: beServer} {
		if args := os.Getenv(env); args != "" {
			if err := be(strings.Fields(args)); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
			os.Exit(0)
		}
	}
	// These tests wait more than they work: as many at once as there are processors are too few.
	flag.Parse()
	asked := false // for a number of one's own, as a build for races needs it, which is slow
	flag.Visit(func(f *flag.Flag) { asked = asked || f.Name == "test.parallel" })
	if !asked {
		if err := flag.Set("test.parallel", parallel); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

func beEtcd(args []string) error {
	c := embed.NewConfig()
	c.Dir, c.Name = args[0], "test"
	c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
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

// Run runs a server in this process until the test ends.
func Run(t testing.TB, run func(context.Context) error) {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil && !strings.Contains(err.Error(), "Server closed") {
			t.Errorf("the server ended with %v", err)
		}
	})
}

// Process is this test's binary as an etcd or a server, which can be killed and started again.
type Process struct {
	Log *os.File // where its words go, from the next start on; nil = this test's

	env  string
	args []string
	cmd  *exec.Cmd
}

// Start runs it, as it was run before.
func (p *Process) Start(t testing.TB) {
	t.Helper()
	p.cmd = exec.Command(os.Args[0])
	p.cmd.Env = append(os.Environ(), p.env+"="+strings.Join(p.args, " "))
	p.cmd.Stderr = os.Stderr
	if p.Log != nil {
		p.cmd.Stderr = p.Log
	}
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
}

// Kill is kill -9: nothing is told, flushed or closed.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	_ = p.cmd.Wait()         // killed is what it was to be
}

// Forget gives an etcd an empty folder for its next start.
func (p *Process) Forget(t testing.TB) { p.args[0] = t.TempDir() }

// ID is the process's.
func (p *Process) ID() int { return p.cmd.Process.Pid }

// NewEtcd starts an etcd that lives as long as the test, and answers its URL.
func NewEtcd(t testing.TB) (*Process, string) {
	t.Helper()
	at := fmt.Sprintf("http://127.0.0.1:%d", ports.Free(t))
	p := &Process{env: etcdEnv, args: []string{t.TempDir(), at, fmt.Sprintf("http://127.0.0.1:%d", ports.Free(t))}}
	p.Start(t)
	t.Cleanup(func() { p.Kill() })
	return p, at
}

// NewServer starts a server in a process of its own over an etcd, and waits until it is ready; it lives as long as the test.
func NewServer(t testing.TB, etcdURL string, flags ...string) (*Process, *Client) {
	t.Helper()
	dir, port := t.TempDir(), ports.Free(t)
	args := append([]string{
		"--etcd-servers=" + etcdURL, "--bind-address=127.0.0.1", fmt.Sprintf("--secure-port=%d", port), "--cert-dir=" + dir,
		"--token-auth-file=" + WriteTokens(t, dir), "--authorization-mode=RBAC", "--endpoint-reconciler-type=none",
	}, flags...)
	p := &Process{env: serverEnv, args: args}
	p.Start(t)
	t.Cleanup(func() { p.Kill() })
	c := NewClient(t, port)
	c.Ready(t, 30*time.Second)
	return p, c
}

// Flags are those of a server in this process with an etcd of its own: what it writes is in dir.
func Flags(t testing.TB, dir string) []string {
	t.Helper()
	return []string{
		"--bind-address=127.0.0.1", fmt.Sprintf("--secure-port=%d", ports.Free(t)), "--data-dir=" + filepath.Join(dir, "data"), "--cert-dir=" + filepath.Join(dir, "certs"),
		"--token-auth-file=" + WriteTokens(t, dir), "--authorization-mode=Node,RBAC", "--allow-privileged",
		"--service-account-issuer=https://kubernetes.default.svc", "--service-account-signing-key-file=" + WriteFile(t, dir, "sa.key", NewKey(t)),
	}
}
