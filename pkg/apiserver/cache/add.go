package cache

import (
	"context"
	"fmt"
	"maps"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

// Add reads a resource that was not there before (or stands in the place of the one with the same folder) and follows it
// from then on. It returns when everything up to the cache's revision is in it; readers find it through the answer only,
// until Publish.
func (c *Cache) Add(ctx context.Context, def *kind.Def) (*Resource, error) {
	if err := c.WaitFor(ctx, 1); err != nil {
		return nil, err
	}
	for {
		r := newResource(def)
		r.home, r.loading = c, true
		// From here on every change waits in the resource: nothing between this and the reading below is lost.
		c.swap(func(now *rows) {
			r.before.Store(now.byGR[def.GroupResource()])
			now.folders[def.KeyPrefix()] = r
		})
		whole, err := c.fill(ctx, r)
		if err != nil {
			return nil, fmt.Errorf("loading %s: %w", def.GroupResource(), err)
		}
		if whole {
			return r, nil
		}
	}
}

// fill reads r from etcd. It answers false if meanwhile all resources were read anew, since changes may be missing then.
func (c *Cache) fill(ctx context.Context, r *Resource) (bool, error) {
	c.mu.Lock()
	loads := c.loads
	c.mu.Unlock()
	rev, err := c.store.Revision(ctx)
	if err != nil {
		return false, err
	}
	items, err := c.read(ctx, r.Def.KeyPrefix(), r, rev)
	if err != nil {
		return false, err
	}
	if err := c.WaitFor(ctx, rev); err != nil {
		return false, err
	}
	c.mu.Lock()
	same := loads == c.loads
	c.mu.Unlock()
	if same {
		r.open(items, rev)
	}
	return same, nil
}

// Publish lets readers find the resource by its group and name.
func (c *Cache) Publish(r *Resource) {
	c.swap(func(now *rows) { now.byGR[r.Def.GroupResource()] = r })
	r.before.Store(nil)
}

// Remove forgets a resource: it is neither followed nor found any more.
func (c *Cache) Remove(gr schema.GroupResource) {
	c.swap(func(now *rows) {
		if r := now.byGR[gr]; r != nil {
			delete(now.folders, r.Def.KeyPrefix())
			delete(now.byGR, gr)
		}
	})
}

// swap replaces the rows by a changed copy.
func (c *Cache) swap(f func(now *rows)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	was := c.rows.Load()
	now := &rows{folders: maps.Clone(was.folders), byGR: maps.Clone(was.byGR)}
	f(now)
	c.rows.Store(now)
}

func (r *Resource) isLoading() bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.loading
}

// open ends the loading: the items are as of rev, what came early and is later follows.
func (r *Resource) open(items []*Item, rev int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, i := range items {
		r.setLocked(i.Key, i)
	}
	r.snap, r.rev, r.floor = nil, rev, rev
	r.count++
	early := r.early
	r.loading, r.early = false, nil
	for _, p := range early {
		if p.rev > rev {
			r.applyLocked(p.key, p.item, p.rev)
		}
	}
}
