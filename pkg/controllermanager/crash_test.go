package controllermanager

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/spf13/pflag"
	apiruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"

	"github.com/sextant-k8s/sextant/pkg/controllermanager/runtime"
)

// errCrashed is what a dead controller, or one whose answer is lost, gets for a request.
var errCrashed = errors.New("the test lost this answer")

// unwritten are the controllers that no drive brings to write, with the reason why a crash of theirs need not be tried.
var unwritten = map[string]string{
	"persistentvolume-expander-controller":           "it writes events alone, and no state",
	"legacy-serviceaccount-token-cleaner-controller": "it looks once a day, and tokens count their use in days",
}

// TestCrash drives every controller while each dies after every write of its own, once for each method and path, and starts anew with nothing but
// what the apiserver holds: the drives must come to the same end as when nobody dies. Of three writes one is answered before
// the death, one is not, and one loses its answer without a death. Each controller lives by itself, so that one's death
// hides nothing of another's.
func TestCrash(t *testing.T) {
	c := newCluster(t)
	c.crashing = true
	lives := &lives{cluster: c, file: c.kubeconfig("crasher", "system:masters"), crashes: map[string]map[string]bool{}}
	lives.begin(t)
	t.Run("drives", func(t *testing.T) { c.drive(t) })
	lives.census(t)
}

// lives remembers which writes of controllers were crashed after: name, then method and path.
type lives struct {
	*cluster
	file    string // a kubeconfig, which the configuration asks for
	mu      sync.Mutex
	crashes map[string]map[string]bool
}

// begin runs every controller, life after life, until the test ends.
func (l *lives) begin(t *testing.T) {
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for _, e := range list() {
		wg.Go(func() {
			for ctx.Err() == nil {
				if err := l.live(ctx, e.name); err != nil && ctx.Err() == nil {
					t.Errorf("%s: %v", e.name, err)
					return
				}
			}
		})
	}
	t.Cleanup(func() {
		stop()
		wg.Wait()
	})
}

// live is one life of a controller, with clients and caches of its own.
func (l *lives) live(parent context.Context, name string) error {
	ctx, die := context.WithCancel(parent)
	defer die()
	conf := &Config{}
	f := pflag.NewFlagSet("", pflag.ContinueOnError)
	conf.AddFlags(f)
	if err := f.Parse(slices.Concat(driveFlags, []string{
		"--kubeconfig=" + l.file, "--controllers=" + name, "--root-ca-file=" + l.path("ca.crt"), "--service-account-private-key-file=" + l.path("sa.key"),
		"--cluster-signing-cert-file=" + l.path("ca.crt"), "--cluster-signing-key-file=" + l.path("ca.key"),
	})); err != nil {
		return err
	}
	conf.Controllers = []string{name}
	if err := conf.Check(); err != nil {
		return err
	}
	config := rest.CopyConfig(l.config)
	config.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return &mortal{next: next, lives: l, name: name, ctx: ctx, die: die}
	})
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	objects, err := metadata.NewForConfig(metadata.ConfigFor(config))
	if err != nil {
		return err
	}
	d := runtime.Deps{Client: client, Informers: informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithTransform(slim))}
	d.Recorder = func(string) func(apiruntime.Object, string, string, string) {
		return func(apiruntime.Object, string, string, string) {}
	}
	all, err := All(conf, d, objects)
	if err != nil {
		return err
	}
	err = runtime.Run(ctx, all, func() { d.Informers.Start(ctx.Done()) })
	d.Informers.Shutdown()
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// mortal is the line of one life to the apiserver.
type mortal struct {
	next  http.RoundTripper
	lives *lives
	name  string
	ctx   context.Context
	die   context.CancelFunc
}

// RoundTrip lets nothing through from the dead, and brings death after a write that was carried out. A write under way is
// let through to its end: the server may always have done what nobody heard of.
func (m *mortal) RoundTrip(r *http.Request) (*http.Response, error) {
	if m.ctx.Err() != nil {
		return nil, errCrashed
	}
	resp, err := m.next.RoundTrip(r)
	if err != nil || r.Method == http.MethodGet || resp.StatusCode >= http.StatusMultipleChoices || strings.HasSuffix(r.URL.Path, "reviews") {
		return resp, err
	}
	n, again := m.lives.count(m.name, r.Method+r.URL.Path)
	if again { // it has been tried: a controller that must write much in one turn would never end it
		return resp, nil
	}
	if n%3 != 2 {
		m.die()
	}
	if n%3 != 0 {
		_ = resp.Body.Close() // it is lost
		return nil, errCrashed
	}
	return resp, nil
}

// count answers how many writes a controller had carried out before this one, and whether this one was among them.
func (l *lives) count(name, write string) (n int, again bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.crashes[name] == nil {
		l.crashes[name] = map[string]bool{}
	}
	n, again = len(l.crashes[name]), l.crashes[name][write]
	l.crashes[name][write] = true
	return n, again
}

// census fails for a controller that wrote nothing: its crash was never tried.
func (l *lives) census(t *testing.T) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range list() {
		if len(l.crashes[e.name]) == 0 && unwritten[e.name] == "" {
			t.Errorf("%s wrote nothing in any drive: give it a drive", e.name)
		}
	}
}
