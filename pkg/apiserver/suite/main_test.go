package suite

import (
	"context"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"github.com/sextant-k8s/sextant/pkg/apiserver/rig"
	"github.com/sextant-k8s/sextant/pkg/apiserver/server"
)

func TestMain(m *testing.M) { rig.Main(m, "4", serve) }

func serve(f *pflag.FlagSet) func(context.Context) error {
	c := &server.Config{Version: "v0.0.0-test"}
	c.AddFlags(f)
	return func(ctx context.Context) error {
		s, err := server.New(ctx, c)
		if err != nil {
			return err
		}
		return s.Run(ctx)
	}
}

// client makes requests as the administrator of one server.
type client struct{ *rig.Client }

// newServer starts a server in a process of its own over an etcd; it lives as long as the test.
func newServer(t *testing.T, etcdURL string, flags ...string) (*rig.Process, *client) {
	t.Helper()
	p, c := rig.NewServer(t, etcdURL, flags...)
	return p, &client{c}
}

// start runs a server with an etcd of its own in this process until the test ends; each change is made to its
// configuration first.
func start(t testing.TB, changes ...func(*server.Config)) *client {
	t.Helper()
	c := &server.Config{Version: "v0.0.0-test"}
	fs := pflag.NewFlagSet("test", pflag.ContinueOnError)
	c.AddFlags(fs)
	if err := fs.Parse(rig.Flags(t, t.TempDir())); err != nil {
		t.Fatal(err)
	}
	for _, change := range changes {
		change(c)
	}
	s, err := server.New(context.Background(), c)
	if err != nil {
		t.Fatal(err)
	}
	rig.Run(t, s.Run)
	cl := &client{rig.NewClient(t, c.SecurePort)}
	cl.Ready(t, 30*time.Second)
	return cl
}
