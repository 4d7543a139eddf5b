package cache

import (
	"bytes"
	"sync"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/pkg/apiserver/store"
)

// hintsMost is how many hints a resource keeps. Each is gone as soon as etcd tells of its key.
const hintsMost = 256

// hints are what this server's own writers know of values that etcd is about to tell of: what would have to be decoded to
// be known. A hint counts for that very value only, so one that is wrong in time, or of a write that failed, does no harm.
type hints struct {
	mu sync.Mutex
	by map[string]hint // by item key
}

type hint struct {
	value                   []byte // as stored
	namespace, name, fields string
}

// Expect tells that value, which is obj as it is stored, is about to be written under a key.
func (r *Resource) Expect(key string, obj kind.Object, value []byte) {
	if r.Def.Loose != nil || r.Def.Storage.Read != nil {
		return // what is read is not quite what was written
	}
	h := hint{value: value, namespace: obj.GetNamespace(), name: obj.GetName()}
	if r.Def.Fields != nil {
		h.fields = pack(r.Def, r.Def.Fields(obj))
	}
	r.hints.mu.Lock()
	defer r.hints.mu.Unlock()
	if r.hints.by == nil || len(r.hints.by) >= hintsMost {
		r.hints.by = map[string]hint{}
	}
	r.hints.by[key] = h
}

// hinted takes the hint for a value, if there is one.
func (r *Resource) hinted(key string, kv store.KV) (hint, bool) {
	r.hints.mu.Lock()
	defer r.hints.mu.Unlock()
	h, ok := r.hints.by[key]
	if !ok || !bytes.Equal(h.value, kv.Value) {
		return hint{}, false // a hint of a later write may still be waiting for its own
	}
	delete(r.hints.by, key)
	return h, true
}

// item makes an item of a value that etcd tells of.
func (r *Resource) item(key string, kv store.KV) (*Item, error) {
	h, ok := r.hinted(key, kv)
	if !ok {
		return newItem(r.Def, key, kv)
	}
	i := &Item{Key: key, Rev: kv.Rev, def: r.Def, fields: h.fields}
	if err := i.take(kv); err != nil {
		return nil, err
	}
	i.called(h.namespace, h.name)
	i.Labels = labelsIn(i.Proto)
	return i, nil
}
