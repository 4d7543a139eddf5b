// Package cache holds what readers want: every stored object as encoded bytes, in order, with the latest history.
//
// The flow: Run (follow.go) reads etcd once, then follows one watch over everything; each change makes an Item and goes to its
// Resource, which replaces it in an ordered copy-on-write tree and appends an Event to its history. GET and LIST read a
// Snapshot. A watcher is a place in a feed: the history itself, or a narrower feed (one name, one namespace, one value
// of the indexed field) that exists while someone reads it, so an event costs its matching watchers only.
//
// Since all resources follow one watch, one revision says how far all of them are: Fresh waits until that is at least
// what etcd had when it was called, and many callers share one question to etcd. Resources that lie in an etcd of their own
// have a Cache of their own, found through the Resource (Home); the one that New answers finds and runs them all.
//
// Concurrency: one goroutine per etcd (Run) changes, any number read. Items, Events and Snapshots never change.
package cache

import (
	"cmp"
	"context"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/pkg/apiserver/store"
)

// Cache is all resources of one etcd. That of most resources also finds those of the others.
type Cache struct {
	store *store.Store
	apart []*Cache             // of the other etcds; never changed after New
	rows  atomic.Pointer[rows] // replaced under mu, never changed

	mu      sync.Mutex
	loads   int           // how often everything was read
	rev     int64         // everything up to here is applied
	shown   atomic.Int64  // rev, for those who only read it
	moved   chan struct{} // closed when rev moves
	ready   chan struct{} // closed when the first load is done
	loaded  bool
	reread  bool  // etcd cannot continue from rev: everything must be read anew
	problem error // why the watch is not running, nil while it is
	line    line
}

// rows are the resources by how they are found.
type rows struct {
	folders map[string]*Resource               // by Def.KeyPrefix: those of this etcd
	byGR    map[schema.GroupResource]*Resource // of every etcd
}

// New makes a cache of the stored rows. apart says which of them do not lie in s, but in a store of their own.
func New(s *store.Store, defs []*kind.Def, apart map[schema.GroupResource]*store.Store) *Cache {
	c := over(s)
	homes := map[*store.Store]*Cache{s: c}
	byGR := c.rows.Load().byGR
	for _, d := range defs {
		if d.Virtual != nil {
			continue
		}
		home := homes[cmp.Or(apart[d.GroupResource()], s)]
		if home == nil {
			home = over(apart[d.GroupResource()])
			homes[home.store] = home
			c.apart = append(c.apart, home)
		}
		r := newResource(d)
		r.home = home
		home.rows.Load().folders[d.KeyPrefix()] = r
		byGR[d.GroupResource()] = r
		for _, v := range d.Versions {
			byGR[schema.GroupResource{Group: v.GV.Group, Resource: d.Resource}] = r
		}
	}
	return c
}

func over(s *store.Store) *Cache {
	c := &Cache{store: s, moved: make(chan struct{}), ready: make(chan struct{})}
	c.rows.Store(&rows{folders: map[string]*Resource{}, byGR: map[schema.GroupResource]*Resource{}})
	return c
}

// All are the caches of every etcd, this one first.
func (c *Cache) All() []*Cache { return append([]*Cache{c}, c.apart...) }

// Store is the etcd that the cache follows.
func (c *Cache) Store() *store.Store { return c.store }

// Resource answers the cache of a group and resource, nil for one that is not stored.
func (c *Cache) Resource(gr schema.GroupResource) *Resource { return c.rows.Load().byGR[gr] }

// ResourceOf answers whose key in any etcd it is, nil if nobody's.
func (c *Cache) ResourceOf(key string) *Resource {
	for _, home := range c.All() {
		if r, _ := home.find(key); r != nil {
			return r
		}
	}
	return nil
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

// ReadAt reads the objects of one of its resources from etcd as they were at rev, for pages whose snapshot is no longer kept.
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
			if item, err = r.item(key, ch.KV); err != nil {
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

// Ready is closed when the cache has been filled once.
func (c *Cache) Ready() <-chan struct{} { return c.ready }

// Loaded tells whether Ready is closed.
func (c *Cache) Loaded() bool {
	select {
	case <-c.ready:
		return true
	default:
		return false
	}
}

// Problem answers why etcd is not followed at the moment, nil while it is.
func (c *Cache) Problem() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.problem
}

// Rev is the revision everything up to which is in the cache.
func (c *Cache) Rev() int64 { return c.shown.Load() }
