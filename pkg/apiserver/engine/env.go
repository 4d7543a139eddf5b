package engine

import (
	"context"
	"errors"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/uuid"

	"github.com/sextant-k8s/sextant/pkg/apiserver/cache"
	"github.com/sextant-k8s/sextant/pkg/apiserver/codec"
	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/pkg/apiserver/request"
	"github.com/sextant-k8s/sextant/pkg/apiserver/store"
)

// The Engine is the kind.Env of hooks and plugins.
var _ kind.Env = (*Engine)(nil)

// inside is a call that the server makes of itself.
func (e *Engine) inside(ctx context.Context, gr schema.GroupResource, namespace, name string) (*call, error) {
	d := e.rows.Load().byGR[gr]
	if d == nil {
		return nil, apierrors.NewNotFound(gr, name)
	}
	v := d.Storage
	s := e.rows.Load().stored[d.GroupResource()]
	if s == nil {
		return nil, apierrors.NewNotFound(gr, name)
	}
	return &call{served: s, e: e, ctx: ctx, now: time.Now(), name: name, manager: "apiserver", info: &request.Info{
		IsResource: true, GVR: v.GV.WithResource(d.Resource), Namespace: namespace, Name: name,
	}}, nil
}

// Def answers the row that serves a group and resource.
func (e *Engine) Def(gr schema.GroupResource) *kind.Def { return e.rows.Load().byGR[gr] }

// Changed counts a resource's events.
func (e *Engine) Changed(gr schema.GroupResource) uint64 {
	if r := e.cache.Resource(gr); r != nil {
		return r.Changed()
	}
	return 0
}

// Get answers an object from the cache.
func (e *Engine) Get(ctx context.Context, gr schema.GroupResource, namespace, name string) (kind.Object, error) {
	r := e.cache.Resource(gr)
	if r == nil {
		return nil, apierrors.NewNotFound(gr, name)
	}
	if err := loaded(ctx, r.Home()); err != nil {
		return nil, err
	}
	i := r.Get(r.Def.ItemKey(namespace, name))
	if i == nil {
		return nil, apierrors.NewNotFound(gr, name)
	}
	return i.Object()
}

// GetFresh answers an object as it is in etcd now.
func (e *Engine) GetFresh(ctx context.Context, gr schema.GroupResource, namespace, name string) (kind.Object, error) {
	c, err := e.inside(ctx, gr, namespace, name)
	if err != nil {
		return nil, err
	}
	at, err := c.look(ctx, name, true)
	if err != nil {
		return nil, err
	}
	return at.obj, nil
}

// List answers the objects of a namespace from the cache.
func (e *Engine) List(ctx context.Context, gr schema.GroupResource, namespace string) ([]kind.Object, error) {
	r := e.cache.Resource(gr)
	if r == nil {
		return nil, apierrors.NewNotFound(gr, "")
	}
	if err := loaded(ctx, r.Home()); err != nil {
		return nil, err
	}
	folder := ""
	if namespace != "" {
		folder = namespace + "/"
	}
	return objects(r.Snapshot().Folder(folder))
}

// ListFresh answers the objects of a namespace as they are in etcd now.
func (e *Engine) ListFresh(ctx context.Context, gr schema.GroupResource, namespace string) ([]kind.Object, error) {
	r := e.cache.Resource(gr)
	if r == nil {
		return nil, apierrors.NewNotFound(gr, "")
	}
	if err := loaded(ctx, r.Home()); err != nil {
		return nil, err
	}
	if _, err := r.Home().Fresh(ctx); err != nil {
		return nil, err
	}
	return e.List(ctx, gr, namespace)
}

// ListIndexed answers the objects whose indexed field has the value.
func (e *Engine) ListIndexed(ctx context.Context, gr schema.GroupResource, value string) ([]kind.Object, error) {
	r := e.cache.Resource(gr)
	if r == nil || r.Def.Indexed == "" {
		return nil, apierrors.NewNotFound(gr, "")
	}
	if err := loaded(ctx, r.Home()); err != nil {
		return nil, err
	}
	items, _ := r.Select(cache.Selector{Fields: fields.OneTermEqualSelector(r.Def.Indexed, value)})
	return objects(items)
}

func objects(items []*cache.Item) ([]kind.Object, error) {
	objs := make([]kind.Object, len(items))
	for n, i := range items {
		var err error
		if objs[n], err = i.Object(); err != nil {
			return nil, err
		}
	}
	return objs, nil
}

// Create stores an object as the server itself.
func (e *Engine) Create(ctx context.Context, gr schema.GroupResource, obj kind.Object) (kind.Object, error) {
	c, err := e.inside(ctx, gr, obj.GetNamespace(), obj.GetName())
	if err != nil {
		return nil, err
	}
	m := metaOf(obj)
	m.UID, m.CreationTimestamp = uuid.NewUUID(), metav1.NewTime(c.now.Truncate(1e9))
	if c.def.Storage.Default != nil {
		c.def.Storage.Default(obj)
	}
	op := c.op()
	rs := &ruleset{}
	rs.prepare(op, obj, nil)
	done, err := begin(op, obj, nil)
	if err != nil {
		return nil, err
	}
	if errs := rs.validate(op, obj, nil); len(errs) > 0 {
		done(false)
		return nil, apierrors.NewInvalid(c.gk(), obj.GetName(), errs)
	}
	value, err := codec.StoredValue(c.def, obj)
	if err != nil {
		done(false)
		return nil, err
	}
	rev, err := c.store().Create(ctx, c.def.Key(obj.GetNamespace(), obj.GetName()), value, c.def.TTLSeconds)
	done(err == nil)
	if errors.Is(err, store.ErrExists) {
		return nil, apierrors.NewAlreadyExists(gr, obj.GetName())
	}
	if err != nil {
		return nil, err
	}
	setRev(obj, rev)
	return obj, nil
}

// Mutate changes an object as the server itself: fn gets a copy, again after each conflict.
func (e *Engine) Mutate(ctx context.Context, gr schema.GroupResource, namespace, name string, fn func(kind.Object) error) (kind.Object, error) {
	c, err := e.inside(ctx, gr, namespace, name)
	if err != nil {
		return nil, err
	}
	at, err := c.look(ctx, name, false)
	for try := 0; ; try++ {
		if err != nil {
			return nil, err
		}
		obj := at.obj.DeepCopyObject().(kind.Object)
		if refused := fn(obj); refused != nil {
			if try == 0 && e.stale(c, at) {
				at, err = c.look(ctx, name, true)
				continue
			}
			return nil, refused
		}
		out, again, err2 := e.put(c, at, obj, try > 0)
		if !again {
			return out, err2
		}
		if try == writeTries {
			return nil, apierrors.NewConflict(gr, name, err2)
		}
		at, err = c.look(ctx, name, true)
	}
}

// Delete deletes as the options say.
func (e *Engine) Delete(ctx context.Context, gr schema.GroupResource, namespace, name string, opts *metav1.DeleteOptions) error {
	c, err := e.inside(ctx, gr, namespace, name)
	if err != nil {
		return err
	}
	if opts == nil {
		opts = &metav1.DeleteOptions{}
	}
	c.dryRun = len(opts.DryRun) > 0
	_, _, err = e.deleteOne(c, name, opts)
	return err
}
