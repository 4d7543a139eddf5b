package controllermanager

import (
	"context"
	"fmt"
	"hash/fnv"
	"io"
	"net/http"
	"os"
	"path"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spf13/pflag"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apiruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"

	"github.com/sextant-k8s/sextant/pkg/controllermanager/runtime"
)

// lateness is how late things are seen.
const lateness = time.Second

// TestLag drives every controller while what it sees lags behind what it wrote, and somebody touches its objects all the
// time so that it looks again before it sees: as many of everything are made as when nothing lags, no pod too many is there
// at any moment, and the drives rest in the same state. What a controller is named for comes at once, so that it decides on
// a newer owner with older children.
//
// SEXTANT_CRASH=all also tries delays by chance: `make crash`.
func TestLag(t *testing.T) {
	t.Parallel()
	own := mainly(t)
	t.Run("children late", func(t *testing.T) {
		t.Parallel()
		lag(t, func(controller, resource string) time.Duration {
			if resource == own[controller] {
				return 0
			}
			return lateness
		})
	})
	if os.Getenv("SEXTANT_CRASH") != "all" {
		return
	}
	for seed := range 4 {
		t.Run(fmt.Sprint("by chance ", seed), func(t *testing.T) {
			t.Parallel()
			lag(t, func(controller, resource string) time.Duration {
				if resource == own[controller] { // it is touched more often than a late look could win a race
					return 0
				}
				h := fnv.New32a()
				fmt.Fprint(h, seed, controller, resource)
				return []time.Duration{0, lateness / 4, lateness, 2 * lateness}[h.Sum32()%4]
			})
		})
	}
}

// mainly answers what each controller watches first: what it is for.
func mainly(t *testing.T) map[string]string {
	conf := &Config{}
	f := pflag.NewFlagSet("", pflag.ContinueOnError)
	conf.AddFlags(f)
	if err := f.Parse(driveFlags); err != nil {
		t.Fatal(err)
	}
	nowhere := &rest.Config{Host: "localhost"} // nothing is asked
	client, err := kubernetes.NewForConfig(nowhere)
	if err != nil {
		t.Fatal(err)
	}
	objects, err := metadata.NewForConfig(nowhere)
	if err != nil {
		t.Fatal(err)
	}
	d := runtime.Deps{Client: client, Informers: informers.NewSharedInformerFactory(client, 0)}
	d.Recorder = func(string) func(apiruntime.Object, string, string, string) {
		return func(apiruntime.Object, string, string, string) {}
	}
	all, err := All(conf, d, objects)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, x := range all {
		if len(x.Watches) > 0 {
			out[x.Name] = x.Watches[0].What
		}
	}
	return out
}

// lag drives every controller; delay answers how late a controller sees a resource.
func lag(t *testing.T, delay func(controller, resource string) time.Duration) {
	beside(t)
	c := newCluster(t)
	c.silent = true
	c.begin(t, func(_ context.Context, name string, _ func(), next http.RoundTripper) http.RoundTripper {
		return roundTripper(func(r *http.Request) (*http.Response, error) {
			resp, err := next.RoundTrip(r)
			if err != nil || r.URL.Query().Get("watch") == "" {
				return resp, err
			}
			if d := delay(name, path.Base(r.URL.Path)); d > 0 {
				resp.Body = newLate(resp.Body, d)
			}
			return resp, nil
		})
	})
	c.touch(t)
	t.Run("drives", func(t *testing.T) { c.drive(t) })
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// touched are the kinds whose controllers make and delete other things.
var touched = []schema.GroupVersionResource{
	{Version: "v1", Resource: "replicationcontrollers"}, {Version: "v1", Resource: "services"}, {Version: "v1", Resource: "resourcequotas"},
	{Group: "apps", Version: "v1", Resource: "daemonsets"}, {Group: "apps", Version: "v1", Resource: "deployments"}, {Group: "apps", Version: "v1", Resource: "replicasets"}, {Group: "apps", Version: "v1", Resource: "statefulsets"},
	{Group: "batch", Version: "v1", Resource: "cronjobs"}, {Group: "batch", Version: "v1", Resource: "jobs"}, {Group: "policy", Version: "v1", Resource: "poddisruptionbudgets"},
}

// touch changes a note of every owner again and again until the test ends, which brings its key to its controller.
func (c *cluster) touch(t *testing.T) {
	client, err := dynamic.NewForConfig(c.config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for n := 0; ctx.Err() == nil; n++ {
			note := fmt.Appendf(nil, `{"metadata":{"annotations":{"%s":"%d"}}}`, touchNote, n)
			for _, gvr := range touched {
				list, err := client.Resource(gvr).List(ctx, metav1.ListOptions{})
				if err != nil {
					continue // the end, or the server is busy: the next round comes
				}
				for _, o := range list.Items {
					if !strings.HasPrefix(o.GetNamespace(), "test-") {
						continue
					}
					// It may be gone by now, or going: then it need not be touched.
					_, _ = client.Resource(gvr).Namespace(o.GetNamespace()).Patch(ctx, o.GetName(), types.MergePatchType, note, metav1.PatchOptions{})
				}
			}
			pause := 100 * time.Millisecond
			if n%4 == 3 { // who sees what it writes late gets its turn, or it would lose every race
				pause = 3 * lateness
			}
			select {
			case <-ctx.Done():
			case <-time.After(pause):
			}
		}
	})
	t.Cleanup(func() {
		stop()
		wg.Wait()
	})
}

// touchNote is the annotation that touch changes.
const touchNote = "test.example.com/touched"

// late is a stream that is read as many moments after it was sent.
type late struct {
	io.Closer
	pieces chan piece
	rest   []byte
	err    error
}

// piece is some bytes, and when they may be seen.
type piece struct {
	data []byte
	err  error
	at   time.Time
}

func newLate(from io.ReadCloser, by time.Duration) *late {
	l := &late{Closer: from, pieces: make(chan piece, 1<<16)}
	go func() {
		defer close(l.pieces)
		for {
			data := make([]byte, 32<<10)
			n, err := from.Read(data)
			l.pieces <- piece{data[:n], err, time.Now().Add(by)}
			if err != nil {
				return
			}
		}
	}()
	return l
}

func (l *late) Read(out []byte) (int, error) {
	if len(l.rest) == 0 && l.err == nil {
		p, ok := <-l.pieces
		if !ok {
			return 0, io.EOF
		}
		if p.err == nil { // an end is no news that could be late
			time.Sleep(time.Until(p.at))
		}
		l.rest, l.err = p.data, p.err
	}
	n := copy(out, l.rest)
	if l.rest = l.rest[n:]; len(l.rest) == 0 && l.err != nil {
		return n, l.err
	}
	return n, nil
}
