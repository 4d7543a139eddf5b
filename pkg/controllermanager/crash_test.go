package controllermanager

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"sync"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// errCrashed is what a dead controller, or one whose answer is lost, gets for a request.
var errCrashed = errors.New("the test lost this answer")

// unwritten are the controllers that no drive brings to write, with the reason why a crash of theirs need not be tried.
var unwritten = map[string]string{
	"selinux-warning-controller":                     "it writes events alone, and no state",
	"persistentvolume-expander-controller":           "it writes events alone, and no state",
	"podcertificaterequest-cleaner-controller":       "what it deletes is half an hour old",
	"legacy-serviceaccount-token-cleaner-controller": "it looks once a day, and tokens count their use in days",
}

// fate is what becomes of a controller when a write of its own was carried out.
type fate int

const (
	spared   fate = iota
	answered      // it hears of it and dies
	unheard       // it dies without having heard
	deaf          // the answer is lost, and it lives on
)

func (f fate) String() string { return [...]string{"spared", "answered", "unheard", "deaf"}[f] }

// TestCrash drives every controller while each dies after every write of its own, once for each method and path, and starts anew with nothing but
// what the apiserver holds: the drives must come to the same end, and rest in the same state, as when nobody dies. Of three
// writes one is answered before the death, one is not, and one loses its answer without a death.
//
// SEXTANT_CRASH=all tries instead every write, every second, third and fifth, with each of these fates: `make crash`.
func TestCrash(t *testing.T) {
	if os.Getenv("SEXTANT_CRASH") != "all" {
		t.Parallel()
		crash(t, func(n int, again bool) fate {
			if again { // it has been tried
				return spared
			}
			return []fate{answered, unheard, deaf}[n%3]
		})
		return
	}
	for _, every := range []int{1, 2, 3, 5} {
		for _, f := range []fate{answered, unheard, deaf} {
			if every == 1 && f == deaf {
				continue // who never hears an answer does not get on, and need not
			}
			t.Run(fmt.Sprint(every, f), func(t *testing.T) {
				t.Parallel()
				crash(t, func(n int, _ bool) fate {
					if n%every != 0 {
						return spared
					}
					return f
				})
			})
		}
	}
}

// crash drives every controller; judge answers the fate of the nth write of one, from 0, which may have been made before.
func crash(t *testing.T, judge func(n int, again bool) fate) {
	beside(t)
	c := newCluster(t)
	c.crashing = true
	w := &writes{count: map[string]int{}, made: map[string]map[string]bool{}}
	c.begin(t, func(ctx context.Context, name string, die func(), next http.RoundTripper) http.RoundTripper {
		return &mortal{next: next, writes: w, judge: judge, name: name, ctx: ctx, die: die}
	})
	t.Run("drives", func(t *testing.T) { c.drive(t) })
	w.census(t)
}

// together holds those of the whole matrix that run at once. Their drives wait most of the time, and each has an apiserver.
var together = make(chan struct{}, 5)

// beside waits until there is room for one more of the whole matrix.
func beside(t *testing.T) {
	together <- struct{}{}
	t.Cleanup(func() { <-together })
}

// mortal is the line of one life to the apiserver.
type mortal struct {
	next   http.RoundTripper
	writes *writes
	judge  func(n int, again bool) fate
	name   string
	ctx    context.Context
	die    func()
}

// RoundTrip lets nothing through from the dead, and brings death after a write that was carried out. A write under way is
// let through to its end: the server may always have done what nobody heard of.
func (m *mortal) RoundTrip(r *http.Request) (*http.Response, error) {
	if m.ctx.Err() != nil {
		return nil, errCrashed
	}
	before := ""
	if r.Method == http.MethodPatch && m.writes.has(m.name, r.Method+r.URL.Path) {
		before = m.version(r)
	}
	resp, err := m.next.RoundTrip(r)
	if err != nil || !isWrite(r) || resp.StatusCode >= http.StatusMultipleChoices {
		return resp, err
	}
	if before != "" && before == m.version(r) {
		// It changed nothing, and has been tried: the next life could not know that this one had done it, and would do it again for ever.
		return resp, nil
	}
	f := m.judge(m.writes.add(m.name, r.Method+r.URL.Path))
	if f == answered || f == unheard {
		m.die()
	}
	if f == unheard || f == deaf {
		_ = resp.Body.Close() // it is lost
		return nil, errCrashed
	}
	return resp, nil
}

// version answers the resourceVersion of what a request is about; "" if there is none.
func (m *mortal) version(r *http.Request) string {
	url := *r.URL
	url.RawQuery = ""
	ask, err := http.NewRequestWithContext(context.WithoutCancel(r.Context()), http.MethodGet, url.String(), nil)
	if err != nil {
		return ""
	}
	ask.Header.Set("Accept", "application/json")
	resp, err := m.next.RoundTrip(ask)
	if err != nil {
		return ""
	}
	defer resp.Body.Close()
	var object metav1.PartialObjectMetadata
	if resp.StatusCode != http.StatusOK || json.NewDecoder(resp.Body).Decode(&object) != nil {
		return ""
	}
	return object.ResourceVersion
}

// writes remembers what controllers wrote: name, then method and path.
type writes struct {
	mu    sync.Mutex
	count map[string]int
	made  map[string]map[string]bool
}

// add answers how many writes a controller had carried out before this one, and whether one of the same method and path was
// among them.
func (w *writes) add(name, write string) (n int, again bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.made[name] == nil {
		w.made[name] = map[string]bool{}
	}
	n, again = w.count[name], w.made[name][write]
	w.count[name]++
	w.made[name][write] = true
	return n, again
}

// has tells whether a controller has written a path in this way before.
func (w *writes) has(name, write string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.made[name][write]
}

// census fails for a controller that wrote nothing: its crash was never tried.
func (w *writes) census(t *testing.T) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range list() {
		if w.count[e.name] == 0 && unwritten[e.name] == "" {
			t.Errorf("%s wrote nothing in any drive: give it a drive", e.name)
		}
	}
}
