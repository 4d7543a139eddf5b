package cache

import (
	"sync/atomic"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/sextant-k8s/sextant/pkg/apiserver/codec"
	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/pkg/apiserver/store"
)

// jsonBudget bounds the JSON bytes kept beside the protobuf ones, over all resources.
const jsonBudget = 64 << 20

var jsonHeld atomic.Int64

// Item is one stored object as readers want it. It never changes; a write makes another.
type Item struct {
	Key             string // below the resource's folder: "default/web" or "node-1"
	Namespace, Name string
	Rev             int64
	Labels          labels.Set
	// Fields are the values of the row's FieldNames, in their order.
	Fields []string
	// Proto is the object's message in the storage version, resourceVersion included.
	Proto []byte

	def  *kind.Def
	json atomic.Pointer[[]byte]
}

// newItem makes an item of a stored value.
func newItem(def *kind.Def, key string, kv store.KV) (*Item, error) {
	raw, err := codec.StoredMessage(kv.Value)
	if err != nil {
		return nil, err
	}
	obj, err := codec.Unmarshal(def.Storage, raw)
	if err != nil {
		return nil, err
	}
	msg, err := store.WithRevision(raw, kv.Rev)
	if err != nil {
		return nil, err
	}
	i := &Item{Key: key, Namespace: obj.GetNamespace(), Name: obj.GetName(), Rev: kv.Rev, Proto: msg, def: def}
	if l := obj.GetLabels(); len(l) > 0 {
		i.Labels = l
	}
	if def.Fields != nil {
		values := def.Fields(obj)
		i.Fields = make([]string, len(def.FieldNames))
		for n, name := range def.FieldNames {
			i.Fields[n] = values[name]
		}
	}
	return i, nil
}

// at answers the item as it was when it was deleted at rev.
func (i *Item) at(rev int64) *Item {
	msg, err := store.WithRevision(i.Proto, rev)
	if err != nil {
		msg = i.Proto // it was parsed before, so this does not happen
	}
	return &Item{Key: i.Key, Namespace: i.Namespace, Name: i.Name, Rev: rev, Labels: i.Labels, Fields: i.Fields, Proto: msg, def: i.def}
}

// Object decodes the item into a new hub object, the caller's own.
func (i *Item) Object() (kind.Object, error) { return codec.Unmarshal(i.def.Storage, i.Proto) }

// JSON answers the object in the storage version without kind and apiVersion. It is kept while the budget lasts.
func (i *Item) JSON() ([]byte, error) {
	if p := i.json.Load(); p != nil {
		return *p, nil
	}
	obj, err := i.Object()
	if err != nil {
		return nil, err
	}
	b, err := codec.JSONBody(obj)
	if err != nil {
		return nil, err
	}
	if jsonHeld.Load() < jsonBudget && i.json.CompareAndSwap(nil, &b) {
		jsonHeld.Add(int64(len(b)))
	}
	return b, nil
}

// drop gives the item's JSON back to the budget; the bytes live on with whoever still reads them.
func (i *Item) drop() {
	if p := i.json.Swap(nil); p != nil {
		jsonHeld.Add(-int64(len(*p)))
	}
}

// field answers a selectable field's value.
func (i *Item) field(name string) string {
	switch name {
	case "metadata.name":
		return i.Name
	case "metadata.namespace":
		return i.Namespace
	}
	for n, f := range i.def.FieldNames {
		if f == name && n < len(i.Fields) {
			return i.Fields[n]
		}
	}
	return ""
}

// Has and Get make an item's selectable fields a fields.Fields.
func (i *Item) Has(field string) bool   { return i.Get(field) != "" }
func (i *Item) Get(field string) string { return i.field(field) }
