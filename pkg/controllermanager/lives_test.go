package controllermanager

import (
	"context"
	"fmt"
	"net/http"
	"slices"
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

// lives runs each controller by itself, life after life, so that one's death or blindness hides nothing of another's.
type lives struct {
	*cluster
	file string // a kubeconfig, which the configuration asks for
	// line answers how one life of a controller reaches the apiserver; die ends that life.
	line func(ctx context.Context, name string, die func(), next http.RoundTripper) http.RoundTripper
}

// begin runs every controller until the test ends.
func (c *cluster) begin(t *testing.T, line func(ctx context.Context, name string, die func(), next http.RoundTripper) http.RoundTripper) {
	l := &lives{c, c.kubeconfig("crasher", "system:masters"), line}
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
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { return l.line(ctx, name, die, next) })
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	objects, err := metadata.NewForConfig(metadata.ConfigFor(config))
	if err != nil {
		return err
	}
	d := runtime.Deps{Client: client, Informers: informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithTransform(newSlimmer().slim))}
	d.Recorder = func(string) func(apiruntime.Object, string, string, string) {
		return func(apiruntime.Object, string, string, string) {}
	}
	all, err := All(conf, d, objects)
	if err != nil {
		return fmt.Errorf("making it: %w", err)
	}
	err = runtime.Run(ctx, all, func() { d.Informers.Start(ctx.Done()) })
	d.Informers.Shutdown()
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// isWrite tells whether a request changes what is stored.
func isWrite(r *http.Request) bool {
	const reviews = "reviews"
	path := r.URL.Path
	return r.Method != http.MethodGet && (len(path) < len(reviews) || path[len(path)-len(reviews):] != reviews)
}
