package suite

import (
	"context"
	"flag"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/pflag"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"

	"github.com/sextant-k8s/sextant/pkg/apiserver/server"
)

// These make this test's own binary an etcd ("folder client-url peer-url") or a server (its flags), so that there are real
// processes to kill.
const (
	etcdEnv   = "SEXTANT_SUITE_ETCD"
	serverEnv = "SEXTANT_SUITE_SERVER"
)

func TestMain(m *testing.M) {
	for env, be := range map[string]func([]string) error{etcdEnv: beEtcd, serverEnv: beServer} {
		if args := os.Getenv(env); args != "" {
			if err := be(strings.Fields(args)); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
			return
		}
	}
	// These tests wait more than they work: as many at once as there are processors are too few.
	flag.Parse()
	if err := flag.Set("test.parallel", "4"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func beServer(args []string) error {
	c := &server.Config{Version: "v0.0.0-test"}
	f := pflag.NewFlagSet("test", pflag.ContinueOnError)
	c.AddFlags(f)
	if err := f.Parse(args); err != nil {
		return err
	}
	s, err := server.New(context.Background(), c)
	if err != nil {
		return err
	}
	return s.Run(context.Background())
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

// process is this test's binary as an etcd or a server, which can be killed and started again.
type process struct {
	env string
	cmd *exec.Cmd
	log *os.File // where its words go, from the next start on; nil = this test's
}

func (p *process) start(t *testing.T) {
	t.Helper()
	p.cmd = exec.Command(os.Args[0])
	p.cmd.Env = append(os.Environ(), p.env)
	p.cmd.Stderr = os.Stderr
	if p.log != nil {
		p.cmd.Stderr = p.log
	}
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
}

// kill is kill -9: nothing is told, flushed or closed.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	_ = p.cmd.Wait()         // killed is what it was to be
}

// newEtcd starts an etcd that lives as long as the test, and answers its URL.
func newEtcd(t *testing.T) (*process, string) {
	t.Helper()
	at := fmt.Sprintf("http://127.0.0.1:%d", freePort(t))
	p := &process{env: fmt.Sprintf("%s=%s %s http://127.0.0.1:%d", etcdEnv, t.TempDir(), at, freePort(t))}
	p.start(t)
	t.Cleanup(func() { p.kill() })
	return p, at
}

// newServer starts a server in a process of its own over an etcd; it lives as long as the test.
func newServer(t *testing.T, etcdURL string, flags ...string) (*process, *client) {
	t.Helper()
	dir, port := t.TempDir(), freePort(t)
	args := append([]string{
		"--etcd-servers=" + etcdURL, "--bind-address=127.0.0.1", fmt.Sprintf("--secure-port=%d", port), "--cert-dir=" + dir,
		"--token-auth-file=" + writeTokens(t, dir), "--authorization-mode=RBAC", "--endpoint-reconciler-type=none",
	}, flags...)
	p := &process{env: serverEnv + "=" + strings.Join(args, " ")}
	p.start(t)
	t.Cleanup(func() { p.kill() })
	c := newClient(t, port)
	c.ready(t, 30*time.Second)
	return p, c
}
