package cache

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"

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
	Labels          Labels
	// fields are the values of the row's FieldNames in their order, a zero byte after each.
	fields string
	// Proto is the object's message in the storage version, resourceVersion included; nil for a loose kind.
	Proto []byte
	// loose is what a loose kind has instead: the JSON of its hub (without kind, with resourceVersion), or, if foreign, the
	// stored value of a version that only the row can convert.
	loose   []byte
	foreign bool

	def  *kind.Def
	json atomic.Pointer[[]byte]
}

// newItem makes an item of a stored value.
func newItem(def *kind.Def, key string, kv store.KV) (*Item, error) {
	i := &Item{Key: key, Rev: kv.Rev, def: def}
	obj, err := i.open(kv)
	if err != nil {
		return nil, err
	}
	i.called(obj.GetNamespace(), obj.GetName())
	if i.Proto != nil {
		i.Labels = labelsIn(i.Proto)
	} else {
		i.Labels = labelsOf(obj.GetLabels())
	}
	if def.Fields != nil {
		i.fields = pack(def, def.Fields(obj))
	}
	return i, nil
}

// called names the item.
func (i *Item) called(namespace, name string) {
	i.Namespace, i.Name = namespace, name
	if i.def.ItemKey(namespace, name) == i.Key {
		i.Namespace, i.Name = i.Key[:len(i.Key)-len(name)], i.Key[len(i.Key)-len(name):] // the key's memory holds both
		i.Namespace = strings.TrimSuffix(i.Namespace, "/")
	}
}

// pack joins the values of an item's fields.
func pack(def *kind.Def, values map[string]string) string {
	n := len(def.FieldNames)
	for _, name := range def.FieldNames {
		n += len(values[name])
	}
	b := make([]byte, 0, n)
	for _, name := range def.FieldNames {
		b = append(b, strings.ReplaceAll(values[name], "\x00", "")...)
		b = append(b, 0)
	}
	return string(b)
}

// nth answers the value of the nth field.
func (i *Item) nth(n int) string {
	rest := i.fields
	for ; n > 0; n-- {
		_, rest, _ = strings.Cut(rest, "\x00")
	}
	value, _, _ := strings.Cut(rest, "\x00")
	return value
}

// open takes over a stored value's bytes and answers the object for its labels and fields.
func (i *Item) open(kv store.KV) (kind.Object, error) {
	if i.def.Loose == nil {
		if err := i.take(kv); err != nil {
			return nil, err
		}
		return codec.Unmarshal(i.def.Storage, i.Proto)
	}
	obj, current, err := i.def.Loose.Peek(kv.Value)
	if err != nil {
		return nil, err
	}
	if !current {
		i.loose, i.foreign = kv.Value, true
		return obj, nil
	}
	i.loose, err = looseBody(obj, kv.Rev)
	return obj, err
}

// take takes over the message of a stored value.
func (i *Item) take(kv store.KV) error {
	raw, err := codec.StoredMessage(i.def, kv.Value)
	if err != nil {
		return err
	}
	i.Proto, err = store.WithRevision(raw, kv.Rev)
	return err
}

func looseBody(obj kind.Object, rev int64) ([]byte, error) {
	obj.SetResourceVersion(strconv.FormatInt(rev, 10))
	return codec.JSONBody(obj)
}

// at answers the item as it was when it was deleted at rev.
func (i *Item) at(rev int64) *Item {
	if i.def.Loose != nil {
		gone := &Item{Key: i.Key, Namespace: i.Namespace, Name: i.Name, Rev: rev, Labels: i.Labels, fields: i.fields, loose: i.loose, foreign: i.foreign, def: i.def}
		if i.foreign {
			return gone
		}
		if obj, err := i.Object(); err == nil {
			gone.loose, err = looseBody(obj, rev)
			if err != nil {
				gone.loose = i.loose
			}
		}
		return gone
	}
	msg, err := store.WithRevision(i.Proto, rev)
	if err != nil {
		msg = i.Proto // it was parsed before, so this does not happen
	}
	return &Item{Key: i.Key, Namespace: i.Namespace, Name: i.Name, Rev: rev, Labels: i.Labels, fields: i.fields, Proto: msg, def: i.def}
}

// Foreign tells that the item lies in etcd in another version than the storage version, and a service may have to convert it.
func (i *Item) Foreign() bool { return i.foreign }

// Object decodes the item into a new hub object, the caller's own.
func (i *Item) Object() (kind.Object, error) {
	if i.def.Loose == nil {
		return codec.Unmarshal(i.def.Storage, i.Proto)
	}
	if i.foreign {
		obj, err := i.def.Loose.Decode(i.loose)
		if err == nil {
			obj.SetResourceVersion(strconv.FormatInt(i.Rev, 10))
		}
		return obj, err
	}
	obj := i.def.Storage.New()
	if err := json.Unmarshal(i.loose, obj); err != nil {
		return nil, fmt.Errorf("reading a cached %s: %w", i.def.Kind, err)
	}
	return obj, nil
}

// IsStoredAs tells whether value is what lies in etcd of the item. It is for items that are not of a loose kind.
func (i *Item) IsStoredAs(value []byte) (bool, error) {
	_, _, raw, err := store.Unwrap(value)
	if err != nil {
		return false, err
	}
	r, err := store.Revise(i.Proto, 0)
	if err != nil || r.Size() != len(raw) {
		return false, err
	}
	return bytes.Equal(r.Append(make([]byte, 0, len(raw))), raw), nil
}

// JSON answers the object in the storage version without kind and apiVersion. It is kept while the budget lasts.
func (i *Item) JSON() ([]byte, error) {
	if p := i.json.Load(); p != nil {
		return *p, nil
	}
	if i.def.Loose != nil && !i.foreign {
		return i.loose, nil
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
		if f == name {
			return i.nth(n)
		}
	}
	return ""
}

// Has and Get make an item's selectable fields a fields.Fields.
func (i *Item) Has(field string) bool   { return i.Get(field) != "" }
func (i *Item) Get(field string) string { return i.field(field) }
