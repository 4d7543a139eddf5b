// Package cache holds what readers want: every stored object as encoded bytes, in order, with the latest history.
//
// The flow: Run reads etcd once, then follows one watch over everything; each change makes an Item and goes to its
// Resource, which replaces it in an ordered copy-on-write tree and appends an Event to its history. GET and LIST read a
// Snapshot. A watcher is a place in a feed: the history itself, or a narrower feed (one name, one namespace, one value
// of the indexed field) that exists while someone reads it, so an event costs its matching watchers only.
//
// Since all resources follow one watch, one revision says how far all of them are: Fresh waits until that is at least
// what etcd had when it was called, and many callers share one question to etcd.
//
// Concurrency: one goroutine (Run) changes, any number read. Items, Events and Snapshots never change.
package cache

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/pkg/apiserver/store"
)

// Cache is all resources of the server.
type Cache struct {
	store *store.Store
	rows  atomic.Pointer[rows] // replaced under mu, never changed

	mu      sync.Mutex
	loads   int           // how often everything was read
	rev     int64         // everything up to here is applied
	moved   chan struct{} // closed when rev moves
	ready   chan struct{} // closed when the first load is done
	loaded  bool
	asking  *question // not sent yet
	sending bool
	problem error // why the watch is not running, nil while it is
}

// rows are the resources by how they are found.
type rows struct {
	folders map[string]*Resource // by Def.KeyPrefix
	byGR    map[schema.GroupResource]*Resource
}

// question is one question to etcd, shared by everyone who asks while none has been sent.
type question struct {
	done chan struct{}
	rev  int64
	err  error
}

// New makes a cache of the stored rows.
func New(s *store.Store, defs []*kind.Def) *Cache {
	c := &Cache{store: s, moved: make(chan struct{}), ready: make(chan struct{})}
	all := &rows{folders: map[string]*Resource{}, byGR: map[schema.GroupResource]*Resource{}}
	for _, d := range defs {
		if d.Virtual != nil {
			continue
		}
		r := newResource(d)
		all.folders[d.KeyPrefix()] = r
		all.byGR[d.GroupResource()] = r
		for _, v := range d.Versions {
			all.byGR[schema.GroupResource{Group: v.GV.Group, Resource: d.Resource}] = r
		}
	}
	c.rows.Store(all)
	return c
}

// Resource answers the cache of a group and resource, nil for one that is not stored.
func (c *Cache) Resource(gr schema.GroupResource) *Resource { return c.rows.Load().byGR[gr] }

// Run loads everything and follows etcd until ctx ends. Losing etcd is waited out; reads that need no fresh answer go on.
func (c *Cache) Run(ctx context.Context) error {
	wait := 50 * time.Millisecond
	for {
		err := c.follow(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		c.mu.Lock()
		c.problem = err
		c.mu.Unlock()
		slog.Warn("following etcd was interrupted, trying again", "err", err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
		wait = min(2*wait, time.Second)
	}
}

func (c *Cache) follow(ctx context.Context) error {
	c.mu.Lock()
	rev, loaded := c.rev, c.loaded
	c.mu.Unlock()
	if !loaded || rev == 0 {
		var err error
		if rev, err = c.load(ctx, loaded); err != nil {
			return err
		}
	}
	err := c.store.Watch(ctx, rev, func(b store.Batch) {
		for _, ch := range b.Changes {
			c.change(ch)
		}
		c.reached(b.Rev)
	})
	if errors.Is(err, rpctypes.ErrCompacted) {
		// What happened meanwhile is gone from etcd: the next turn reads everything and tells the differences.
		c.mu.Lock()
		c.rev = 0
		c.mu.Unlock()
	}
	return err
}

// load reads every resource at one revision.
func (c *Cache) load(ctx context.Context, again bool) (int64, error) {
	rev, err := c.store.Revision(ctx)
	if err != nil {
		return 0, fmt.Errorf("reading etcd's revision: %w", err)
	}
	c.mu.Lock()
	c.loads++
	c.mu.Unlock()
	for folder, r := range c.rows.Load().folders {
		if r.isLoading() {
			continue // who added it sees that all was read and begins anew
		}
		items, err := c.read(ctx, folder, r, rev)
		if err != nil {
			return 0, fmt.Errorf("loading %s: %w", r.Def.Resource, err)
		}
		if again {
			r.reload(items, rev)
		} else {
			r.load(items, rev)
		}
	}
	c.mu.Lock()
	if !c.loaded {
		c.loaded = true
		close(c.ready)
	}
	c.mu.Unlock()
	c.reached(rev)
	return rev, nil
}

func (c *Cache) read(ctx context.Context, folder string, r *Resource, rev int64) ([]*Item, error) {
	var items []*Item
	from := ""
	for {
		p, err := c.store.List(ctx, folder, from, rev, 2000)
		if err != nil {
			return nil, err
		}
		for _, kv := range p.KVs {
			i, err := newItem(r.Def, strings.TrimPrefix(kv.Key, folder), kv)
			if err != nil {
				slog.Error("a stored object cannot be read and is left out", "key", kv.Key, "err", err)
				continue
			}
			items = append(items, i)
		}
		if !p.More || len(p.KVs) == 0 {
			return items, nil
		}
		from = p.KVs[len(p.KVs)-1].Key + "\x00"
	}
}

// ReadAt reads a resource's objects from etcd as they were at rev, for pages whose snapshot is no longer kept.
func (c *Cache) ReadAt(ctx context.Context, r *Resource, rev int64) (*Snapshot, error) {
	items, err := c.read(ctx, r.Def.KeyPrefix(), r, rev)
	if err != nil {
		return nil, err
	}
	old := newResource(r.Def)
	old.load(items, rev)
	return old.Snapshot(), nil
}

func (c *Cache) change(ch store.Change) {
	r, key := c.find(ch.Key)
	for ; r != nil; r = r.before.Load() {
		var item *Item
		if !ch.Deleted {
			var err error
			if item, err = newItem(r.Def, key, ch.KV); err != nil {
				slog.Error("a stored object cannot be read and is left out", "key", ch.Key, "err", err)
			}
		}
		r.apply(key, item, ch.Rev)
	}
}

// find answers whose key it is: folders are one or two path elements deep.
func (c *Cache) find(key string) (*Resource, string) {
	folders := c.rows.Load().folders
	for at := 0; ; {
		n := strings.IndexByte(key[at:], '/')
		if n < 0 {
			return nil, ""
		}
		at += n + 1
		if r := folders[key[:at]]; r != nil {
			return r, key[at:]
		}
	}
}

func (c *Cache) reached(rev int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.problem = nil
	if rev <= c.rev {
		return
	}
	c.rev = rev
	close(c.moved)
	c.moved = make(chan struct{})
}

// Ready is closed when the cache has been filled once.
func (c *Cache) Ready() <-chan struct{} { return c.ready }

// Problem answers why etcd is not followed at the moment, nil while it is.
func (c *Cache) Problem() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.problem
}

// Rev is the revision everything up to which is in the cache.
func (c *Cache) Rev() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.rev
}
