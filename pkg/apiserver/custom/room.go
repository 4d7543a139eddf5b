package custom

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/apiextensions-apiserver/pkg/apihelpers"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sextant-k8s/sextant/pkg/apiserver/cache"
	"github.com/sextant-k8s/sextant/pkg/apiserver/engine"
	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/pkg/apiserver/webhook"
)

var definitions = schema.GroupResource{Group: apiextensionsv1.GroupName, Resource: "customresourcedefinitions"}

// Config is what a Room is made of.
type Config struct {
	Env    kind.Env
	Cache  *cache.Cache
	Engine *engine.Engine
	Caller *webhook.Caller
	// Told is called with all rows that are served, after they changed.
	Told func(rows []*kind.Def)
}

// Room keeps what is served equal to the definitions that are stored.
type Room struct {
	c     Config
	ready chan struct{}

	called map[string]calling // by the definition's name; only Run's

	mu     sync.Mutex
	served map[string]*definition // by the definition's name
	count  uint64                 // so many changes of definitions have been followed
	moved  chan struct{}          // closed when count moves
	ending map[types.UID]bool     // definitions whose objects are being deleted
}

// New makes a Room; nothing is served before Run.
func New(c Config) *Room {
	return &Room{c: c, ready: make(chan struct{}), called: map[string]calling{}, served: map[string]*definition{}, moved: make(chan struct{}), ending: map[types.UID]bool{}}
}

// Ready is closed when everything that was defined at the start is served.
func (r *Room) Ready() <-chan struct{} { return r.ready }

// Run follows the definitions until ctx ends.
func (r *Room) Run(ctx context.Context) error {
	res := r.c.Cache.Resource(definitions)
	select {
	case <-res.Home().Ready():
	case <-ctx.Done():
		return ctx.Err()
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	again := map[string]bool{} // what failed, or may do better now
	first := true
	for ctx.Err() == nil {
		snap, w := res.WatchNow(cache.Selector{})
		for _, i := range snap.Folder("") {
			again[i.Name] = true
		}
		for name := range r.served { // only Run writes it
			again[name] = true
		}
		for err := error(nil); err == nil && ctx.Err() == nil; {
			count := res.Changed() // before Poll: all of these are among what it answers
			var events []*cache.Event
			var wake <-chan struct{}
			if events, wake, err = w.Poll(); err != nil {
				break
			}
			for _, e := range events {
				again[nameOf(e)] = true
			}
			again = r.pass(ctx, &wg, again)
			r.reached(count)
			if first {
				first = false
				close(r.ready)
			}
			retry := time.Duration(1<<62 - 1)
			if len(again) > 0 {
				retry = time.Second
			}
			t := time.NewTimer(retry)
			select {
			case <-wake:
			case <-t.C:
			case <-ctx.Done():
			}
			t.Stop()
		}
		w.Stop()
	}
	return ctx.Err()
}

func nameOf(e *cache.Event) string {
	if e.Item != nil {
		return e.Item.Name
	}
	return e.Prev.Name
}

// pass brings the named definitions up to date and answers those to be tried again.
func (r *Room) pass(ctx context.Context, wg *sync.WaitGroup, names map[string]bool) (again map[string]bool) {
	again = map[string]bool{}
	changed := false
	todo := make([]string, 0, len(names))
	for n := range names {
		todo = append(todo, n)
	}
	slices.Sort(todo)
	for len(todo) > 0 {
		name := todo[0]
		todo = todo[1:]
		did, freed, err := r.sync(ctx, wg, name)
		if err != nil && ctx.Err() == nil {
			slog.Error("a custom resource definition cannot be served", "name", name, "err", err)
			again[name] = true
		}
		changed = changed || did
		for _, n := range freed {
			if !slices.Contains(todo, n) {
				todo = append(todo, n)
			}
		}
	}
	if changed {
		r.c.Told(r.rows())
	}
	return again
}

// rows are those of every served version.
func (r *Room) rows() (out []*kind.Def) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, d := range r.served {
		out = append(out, d.served...)
	}
	return out
}

// sync serves one definition as it now is. freed are definitions that may get names which it gave up.
func (r *Room) sync(ctx context.Context, wg *sync.WaitGroup, name string) (changed bool, freed []string, err error) {
	obj, err := r.c.Env.Get(ctx, definitions, "", name)
	if apierrors.IsNotFound(err) {
		delete(r.called, name)
		was := r.withdraw(name)
		if was == nil {
			return false, nil, nil
		}
		all, err := r.inGroup(was.crd.Spec.Group, name)
		return true, slices.Collect(maps.Keys(all)), err
	}
	if err != nil {
		return false, nil, err
	}
	crd := obj.(*apiextensionsv1.CustomResourceDefinition)
	others, err := r.inGroup(crd.Spec.Group, name)
	if err != nil {
		return false, nil, err
	}
	now := crd.DeepCopy()
	judge(now, others)
	if apihelpers.IsCRDConditionTrue(now, apiextensionsv1.Established) {
		if changed, err = r.serve(ctx, now); err != nil {
			return changed, nil, err
		}
	}
	if !equality.Semantic.DeepEqual(now.Status, crd.Status) {
		if changed { // served first, said afterwards: who waits for Established may go ahead
			r.c.Told(r.rows())
			changed = false
		}
		_, err = r.c.Env.Mutate(ctx, definitions, "", name, func(o kind.Object) error {
			c := o.(*apiextensionsv1.CustomResourceDefinition)
			before := c.Status.DeepCopy()
			judge(c, others)
			if !equality.Semantic.DeepEqual(*before, c.Status) {
				own(c, metav1.Now().Rfc3339Copy())
			}
			return nil
		})
		if err != nil && !apierrors.IsNotFound(err) {
			return changed, nil, fmt.Errorf("writing its status: %w", err)
		}
	}
	if crd.DeletionTimestamp != nil {
		r.finalize(ctx, wg, crd)
	}
	return changed, nil, nil
}

// inGroup answers what the other definitions of a group are called, by their names. Only what changed since it was asked last is
// decoded: definitions are large, and each that comes asks about all others.
func (r *Room) inGroup(group, but string) (map[string]apiextensionsv1.CustomResourceDefinitionNames, error) {
	out := map[string]apiextensionsv1.CustomResourceDefinitionNames{}
	for _, i := range r.c.Cache.Resource(definitions).Snapshot().Folder("") {
		if _, of, _ := strings.Cut(i.Name, "."); of != group || i.Name == but { // a name is its resource's and its group's
			continue
		}
		c, known := r.called[i.Name]
		if !known || c.rev != i.Rev {
			o, err := i.Object()
			if err != nil {
				return nil, err
			}
			c = calling{i.Rev, o.(*apiextensionsv1.CustomResourceDefinition).Status.AcceptedNames}
			r.called[i.Name] = c
		}
		out[i.Name] = c.names
	}
	return out, nil
}

// calling is what a definition was called at a revision.
type calling struct {
	rev   int64
	names apiextensionsv1.CustomResourceDefinitionNames
}

// serve replaces what is served for a definition if that is not what it says.
func (r *Room) serve(ctx context.Context, crd *apiextensionsv1.CustomResourceDefinition) (bool, error) {
	r.mu.Lock()
	was := r.served[crd.Name]
	r.mu.Unlock()
	if was != nil && was.crd.UID == crd.UID && equality.Semantic.DeepEqual(was.crd.Spec, crd.Spec) &&
		equality.Semantic.DeepEqual(was.crd.Status.AcceptedNames, crd.Status.AcceptedNames) &&
		apihelpers.IsCRDConditionTrue(was.crd, apiextensionsv1.Terminating) == apihelpers.IsCRDConditionTrue(crd, apiextensionsv1.Terminating) {
		return false, nil
	}
	d, err := newDefinition(crd, r.c.Caller)
	if err != nil {
		return false, err
	}
	res, err := r.c.Cache.Add(ctx, d.main)
	if err != nil {
		return false, err
	}
	r.c.Engine.Serve(res, d.served)
	r.c.Cache.Publish(res)
	r.mu.Lock()
	r.served[crd.Name] = d
	r.mu.Unlock()
	return true, nil
}

// withdraw ends the serving of a definition that is gone and answers what was served.
func (r *Room) withdraw(name string) *definition {
	r.mu.Lock()
	d := r.served[name]
	delete(r.served, name)
	r.mu.Unlock()
	if d != nil {
		r.c.Engine.Withdraw(d.main.GroupResource())
		r.c.Cache.Remove(d.main.GroupResource())
	}
	return d
}

func (r *Room) reached(count uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if count == r.count {
		return
	}
	r.count = count
	close(r.moved)
	r.moved = make(chan struct{})
}

// patience is how long a request for a resource that is about to be served waits.
const patience = 5 * time.Second

// Await tells whether a resource that is not served may be by now: it is defined, perhaps by another server a moment ago.
func (r *Room) Await(ctx context.Context, gvr schema.GroupVersionResource) bool {
	if !strings.Contains(gvr.Group, ".") {
		return false
	}
	res := r.c.Cache.Resource(definitions)
	if _, err := res.Home().Fresh(ctx); err != nil {
		return false
	}
	if res.Get(gvr.Resource+"."+gvr.Group) == nil {
		return false
	}
	count := res.Changed()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		r.mu.Lock()
		reached, moved := r.count >= count, r.moved
		r.mu.Unlock()
		if reached {
			return true
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return false
		}
	}
}

// validCA tells whether a conversion webhook's CA bundle, if it has one, can be read.
func validCA(crd *apiextensionsv1.CustomResourceDefinition) bool {
	c := crd.Spec.Conversion
	if c == nil || c.Webhook == nil || c.Webhook.ClientConfig == nil || len(c.Webhook.ClientConfig.CABundle) == 0 {
		return true
	}
	for rest := c.Webhook.ClientConfig.CABundle; ; {
		var b *pem.Block
		if b, rest = pem.Decode(rest); b == nil {
			return false
		}
		if _, err := x509.ParseCertificate(b.Bytes); err == nil {
			return true
		}
	}
}
