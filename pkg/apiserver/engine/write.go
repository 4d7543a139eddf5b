package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sextant-k8s/sextant/pkg/apiserver/admission"
	"github.com/sextant-k8s/sextant/pkg/apiserver/cache"
	"github.com/sextant-k8s/sextant/pkg/apiserver/codec"
	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/pkg/apiserver/store"
)

// writeTries bounds how often a write that states no resourceVersion is repeated on conflict.
const writeTries = 10

func setRev(obj kind.Object, rev int64) { obj.SetResourceVersion(strconv.FormatInt(rev, 10)) }

// wrote notes what a hub object lies in etcd as, for the answer.
func (c *call) wrote(obj kind.Object, value []byte, rev int64) {
	setRev(obj, rev)
	c.written = written{obj, value, rev}
}

// written is an object as it was stored by this call.
type written struct {
	obj   kind.Object
	value []byte
	rev   int64
}

// live is an object as it is stored, and where.
type live struct {
	obj   kind.Object // the caller's own
	rev   int64
	value []byte      // as it lies in etcd, without the resourceVersion; nil where the item tells, or it has to be made of obj
	item  *cache.Item // where obj is from; nil = etcd
}

// is tells whether value is what is stored.
func (l *live) is(value []byte, def *kind.Def) (bool, error) {
	before := l.value
	switch {
	case before != nil:
	case l.item != nil && def.Loose == nil:
		return l.item.IsStoredAs(value)
	default:
		var err error
		if before, err = codec.StoredValue(def, l.obj); err != nil {
			return false, err
		}
	}
	return bytes.Equal(value, before), nil
}

// look finds an object for a write: optimistically in the cache, else as of now.
func (c *call) look(ctx context.Context, name string, fresh bool) (*live, error) {
	if fresh {
		kv, err := c.store().Get(ctx, c.def.Key(c.info.Namespace, name))
		if errors.Is(err, store.ErrMissing) {
			return nil, apierrors.NewNotFound(c.gr(), name)
		}
		if err != nil {
			return nil, err
		}
		return c.liveOf(kv)
	}
	i := c.res.Get(c.def.ItemKey(c.info.Namespace, name))
	if i == nil {
		return c.look(ctx, name, true)
	}
	obj, err := c.object(i)
	if err != nil {
		return nil, err
	}
	return &live{obj: obj, rev: i.Rev, item: i}, nil
}

func (c *call) liveOf(kv store.KV) (*live, error) {
	obj, err := codec.FromStored(c.def, kv.Value)
	if err != nil {
		return nil, err
	}
	setRev(obj, kv.Rev)
	return &live{obj: obj, rev: kv.Rev, value: kv.Value}, nil
}

// change makes the new hub object of the stored one, which it must not modify. A nil manager result means "as update".
type change func(old kind.Object) (kind.Object, error)

// modify changes a stored object under the rules and answers what is stored now. The change is made on a fresh copy,
// again after each conflict, unless the result names the resourceVersion it was made for.
func (e *Engine) modify(c *call, rs *ruleset, options runtime.Object, make change) (kind.Object, error) {
	at, err := c.look(c.ctx, c.info.Name, false)
	for try := 0; ; try++ {
		if err != nil {
			return nil, err
		}
		var obj kind.Object
		var again bool
		obj, again, err = e.modifyOnce(c, rs, options, at, make, try > 0)
		if !again {
			return obj, err
		}
		if try == writeTries {
			return nil, apierrors.NewConflict(c.gr(), c.info.Name, err)
		}
		at, err = c.look(c.ctx, c.info.Name, true)
	}
}

// errModified is the cause that clients know a lost race by.
var errModified = errors.New("the object has been modified; please apply your changes to the latest version and try again")

// modifyOnce is one try. again tells that the object stood elsewhere and the change may be made anew; fresh, that at is
// as of now rather than from the cache.
func (e *Engine) modifyOnce(c *call, rs *ruleset, options runtime.Object, at *live, make change, fresh bool) (_ kind.Object, again bool, err error) {
	old := at.obj
	obj, err := make(old)
	if err != nil {
		// What the cache shows may be old news: only what etcd says now is an answer.
		return nil, !fresh && e.stale(c, at), err
	}
	if err := c.place(obj); err != nil {
		return nil, false, err
	}
	if u := obj.GetUID(); u != "" && u != old.GetUID() {
		if !fresh && e.stale(c, at) {
			return nil, true, errModified
		}
		return nil, false, apierrors.NewConflict(c.gr(), c.info.Name, fmt.Errorf("StorageError: invalid object, Code: 4, Key: %s, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID in precondition: %v, UID in object meta: %v",
			c.store().Path(c.def.Key(obj.GetNamespace(), obj.GetName())), u, old.GetUID()))
	}
	rv := obj.GetResourceVersion()
	if rv == "" && c.def.NeedVersionOnUpdate && c.info.Verb == "update" {
		return nil, false, apierrors.NewInvalid(c.gk(), c.info.Name, mustSetRV())
	}
	if rv != "" && rv != "0" && rv != old.GetResourceVersion() {
		if !fresh && e.stale(c, at) {
			return nil, true, errModified
		}
		return nil, false, apierrors.NewConflict(c.gr(), c.info.Name, errModified)
	}
	obj.SetResourceVersion(old.GetResourceVersion())
	c.name = obj.GetName()
	keepIdentity(obj, old)
	op := c.op()
	sent := obj.GetManagedFields()
	obj.SetManagedFields(nil) // no rule is about them
	rs.prepare(op, obj, old)
	// A user owns what the user sent, not what admission makes of it.
	obj.SetManagedFields(sent)
	if err := c.manage(obj, old); err != nil {
		return nil, false, err
	}
	entries := obj.GetManagedFields()
	obj.SetManagedFields(nil)
	req := c.admit(admission.Update, obj, old, options)
	if err := e.plugins.Mutate(c.ctx, req); err != nil {
		return nil, !fresh && e.stale(c, at), err
	}
	if req.Changed {
		keepIdentity(obj, old)
		rs.prepare(op, obj, old)
	}
	done, err := begin(op, obj, old)
	if err != nil {
		return nil, !fresh && e.stale(c, at), err
	}
	stored := false
	defer func() { done(stored) }()
	if errs := rs.validate(op, obj, old); len(errs) > 0 {
		if !fresh && e.stale(c, at) {
			return nil, true, errModified
		}
		return nil, false, apierrors.NewInvalid(c.gk(), c.info.Name, errs)
	}
	if rs.aspect == nil {
		c.warnFor(op, obj, old)
	}
	if err := e.plugins.Validate(c.ctx, req); err != nil {
		return nil, !fresh && e.stale(c, at), err
	}
	obj.SetManagedFields(entries)
	out, again, err := e.put(c, at, obj, fresh)
	stored = err == nil && !c.dryRun
	return out, again, err
}

// isDecision tells a no that somebody decided on from an etcd that did not answer.
func isDecision(err error) bool {
	var decided apierrors.APIStatus
	return errors.As(err, &decided)
}

// stale tells whether the cache's view that a decision was made on is not etcd's of now.
func (e *Engine) stale(c *call, at *live) bool {
	now, err := c.look(c.ctx, at.obj.GetName(), true)
	return err == nil && now.rev != at.rev || apierrors.IsNotFound(err)
}

// put writes the new object in the place of the old: nothing if they are the same, a removal if the last thing that
// held a deleted object is gone. What needs no transaction has nothing that would find a lagging cache out, so it asks
// etcd first unless at is fresh.
func (e *Engine) put(c *call, at *live, obj kind.Object, fresh bool) (_ kind.Object, again bool, err error) {
	if obj.GetDeletionTimestamp() != nil && c.free(obj) && !c.free(at.obj) {
		return e.remove(c, at, obj, fresh)
	}
	value, err := codec.StoredValue(c.def, obj)
	if err != nil {
		return nil, false, err
	}
	same, err := at.is(value, c.def)
	if err != nil {
		return nil, false, err
	}
	same = same && !c.def.AlwaysWrite()
	if (same || c.dryRun) && !fresh && e.stale(c, at) {
		return nil, true, errModified
	}
	if same && !c.dryRun && c.store().Stale(c.ctx, c.def.Key(obj.GetNamespace(), obj.GetName())) {
		same = false // it is written to be sealed anew
	}
	if same {
		setRev(obj, at.rev)
		return obj, false, nil
	}
	if c.dryRun {
		return obj, false, nil
	}
	c.res.Expect(c.def.ItemKey(obj.GetNamespace(), obj.GetName()), obj, value)
	rev, _, err := c.store().Update(c.ctx, c.def.Key(obj.GetNamespace(), obj.GetName()), value, at.rev, c.def.TTLSeconds)
	switch {
	case errors.Is(err, store.ErrConflict):
		return nil, true, errModified
	case errors.Is(err, store.ErrMissing):
		return nil, false, apierrors.NewNotFound(c.gr(), obj.GetName())
	case err != nil:
		return nil, false, err
	}
	c.wrote(obj, value, rev)
	return obj, false, nil
}

// free tells that nothing holds a deleted object any more.
func (c *call) free(obj kind.Object) bool {
	if len(obj.GetFinalizers()) > 0 || c.def.Held != nil && c.def.Held(obj) {
		return false
	}
	g := obj.GetDeletionGracePeriodSeconds()
	return g == nil || *g == 0
}

// remove takes an object out of the store.
func (e *Engine) remove(c *call, at *live, obj kind.Object, fresh bool) (_ kind.Object, again bool, err error) {
	if c.dryRun {
		if !fresh && e.stale(c, at) {
			return nil, true, errModified
		}
		return obj, false, nil
	}
	op := c.op()
	done, err := begin(op, nil, at.obj)
	if err != nil {
		return nil, false, err
	}
	rev, _, err := c.store().Delete(c.ctx, c.def.Key(at.obj.GetNamespace(), at.obj.GetName()), at.rev)
	done(err == nil)
	switch {
	case errors.Is(err, store.ErrConflict):
		return nil, true, errModified
	case errors.Is(err, store.ErrMissing):
		return nil, false, apierrors.NewNotFound(c.gr(), at.obj.GetName())
	case err != nil:
		return nil, false, err
	}
	setRev(obj, rev)
	return obj, false, nil
}

// manage records who wrote which fields.
func (c *call) manage(obj, old kind.Object) error {
	if c.applied {
		return nil // apply recorded them as it merged
	}
	m, err := c.fieldManager()
	if err != nil {
		return err
	}
	return m.update(c, obj, old)
}

func optionsMeta(kind string) metav1.TypeMeta {
	return metav1.TypeMeta{Kind: kind, APIVersion: "meta.k8s.io/v1"}
}

// subOf is the subresource as managedFields name it.
func subOf(c *call) string { return strings.ToLower(c.info.Sub) }
