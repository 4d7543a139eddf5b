package engine

import (
	"context"
	"maps"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sextant-k8s/sextant/pkg/apiserver/cache"
	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

// Serve serves a resource that comes later than the server's start, in the place of what was served under its name: one
// row per version, all over the objects of res. The row that res was made with need not be among them. Watches of what
// was served before end, so that their clients come back.
func (e *Engine) Serve(res *cache.Resource, defs []*kind.Def) {
	e.swap(res.Def.GroupResource(), func(now *rows) {
		for _, d := range defs {
			now.add(d, res)
		}
		now.byGR[res.Def.GroupResource()] = res.Def
		now.stored[res.Def.GroupResource()] = newServed(res.Def, &res.Def.Storage, res)
	})
}

// Withdraw ends the serving of a resource.
func (e *Engine) Withdraw(gr schema.GroupResource) { e.swap(gr, func(*rows) {}) }

// Await sets who is asked when a resource is not served: true is that it may be by now. Before the first request.
func (e *Engine) Await(f func(ctx context.Context, gvr schema.GroupVersionResource) bool) {
	e.awaited = f
}

// swap replaces the rows by a copy without gr, changed by f.
func (e *Engine) swap(gr schema.GroupResource, f func(now *rows)) {
	e.serving.Lock()
	defer e.serving.Unlock()
	was := e.rows.Load()
	now := &rows{served: maps.Clone(was.served), byGR: maps.Clone(was.byGR), stored: maps.Clone(was.stored)}
	var ended []*served
	for gvr, s := range was.served {
		if gvr.GroupResource() == gr {
			delete(now.served, gvr)
			ended = append(ended, s)
		}
	}
	delete(now.byGR, gr)
	delete(now.stored, gr)
	f(now)
	e.rows.Store(now)
	for _, s := range ended {
		s.end()
	}
}

// find answers what serves a resource, nil if nothing does.
func (e *Engine) find(ctx context.Context, gvr schema.GroupVersionResource) *served {
	s := e.rows.Load().served[gvr]
	if s == nil && e.awaited != nil && e.awaited(ctx, gvr) {
		s = e.rows.Load().served[gvr]
	}
	return s
}

// has tells whether a group and version holds anything besides custom resources.
func (r *rows) has(gv schema.GroupVersion) bool {
	for gvr, s := range r.served {
		if gvr.GroupVersion() == gv && s.def.Loose == nil {
			return true
		}
	}
	return false
}

// object answers a cached object in the row's hub.
func (c *call) object(i *cache.Item) (kind.Object, error) {
	objs, err := c.objects([]*cache.Item{i})
	if err != nil {
		return nil, err
	}
	return objs[0], nil
}

// objects answers cached objects in the row's hub.
func (c *call) objects(items []*cache.Item) ([]kind.Object, error) {
	objs, err := objects(items)
	if err != nil || c.def.Loose == nil || c.def.Loose.Adopt == nil || len(objs) == 0 {
		return objs, err
	}
	return c.def.Loose.Adopt(objs)
}

// asStored tells that an item's bytes are what the caller asked for.
func (c *call) asStored() bool {
	return c.ver.FromHub == nil && (c.def.Loose == nil || c.def.Loose.Adopt == nil)
}

// listGVK is the kind of the list asked for.
func (c *call) listGVK() schema.GroupVersionKind {
	gvk := c.gvk()
	if c.def.Loose != nil {
		gvk.Kind = c.def.Loose.ListKind
	} else {
		gvk.Kind += "List"
	}
	return gvk
}

// Row answers the row that serves a kind in a version, nil if nothing does.
func (e *Engine) Row(gvk schema.GroupVersionKind) *kind.Def {
	for gvr, s := range e.rows.Load().served {
		if gvr.GroupVersion() == gvk.GroupVersion() && s.def.GVK(s.ver).Kind == gvk.Kind && s.def.Virtual == nil {
			return s.def
		}
	}
	return nil
}

// Serves tells whether a resource is served, and the subresource if sub is not "". It waits for nothing.
func (e *Engine) Serves(gvr schema.GroupVersionResource, sub string) bool {
	s := e.rows.Load().served[gvr]
	return s != nil && (sub == "" || s.def.Sub(sub) != nil)
}
