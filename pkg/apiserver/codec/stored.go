// Package codec turns objects into bytes and back: the stored form, what clients send, and what they want to read.
//
// The stored form is protobuf in the storage version. What a client reads is spliced from stored bytes where it asks
// for the storage version (package engine does that with the heads and tails here); otherwise it is encoded from the
// object. Everything here is a function of its arguments and safe for concurrent use.
package codec

import (
	"bytes"
	"encoding/json"
	"fmt"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/pkg/apiserver/store"
)

// message is what every generated type can do.
type message interface {
	Marshal() ([]byte, error)
	Unmarshal([]byte) error
}

// sized is what a generated type can do that knows its size beforehand.
type sized interface {
	Size() int
	MarshalToSizedBuffer([]byte) (int, error)
}

// StoredMessage opens a stored value and answers the object's message. Upstream writes some kinds as JSON; we read both.
func StoredMessage(def *kind.Def, value []byte) ([]byte, error) {
	if !store.IsProto(value) && bytes.HasPrefix(value, []byte{'{'}) {
		obj, err := fromStoredJSON(def, value)
		if err != nil {
			return nil, fmt.Errorf("reading a stored %s: %w", def.Kind, err)
		}
		return Marshal(obj)
	}
	_, _, raw, err := store.Unwrap(value)
	return raw, err
}

func fromStoredJSON(def *kind.Def, value []byte) (kind.Object, error) {
	var meta metav1.TypeMeta
	if err := json.Unmarshal(value, &meta); err != nil {
		return nil, err
	}
	v, gv := &def.Storage, meta.GroupVersionKind().GroupVersion()
	if gv != v.GV {
		if v = def.Version(gv); v == nil {
			if def.Older == nil {
				return nil, fmt.Errorf("there is no version %s", gv)
			}
			return def.Older(gv, value)
		}
	}
	obj := v.New()
	if err := json.Unmarshal(value, obj); err != nil {
		return nil, err
	}
	if v.Default != nil {
		v.Default(obj)
	}
	return v.Hub(obj)
}

// StoredValue is the value to store for a hub object; its resourceVersion is left out, etcd knows it.
func StoredValue(def *kind.Def, obj kind.Object) ([]byte, error) {
	rv := obj.GetResourceVersion()
	obj.SetResourceVersion("")
	defer obj.SetResourceVersion(rv)
	if def.Loose != nil {
		return def.Loose.Encode(obj)
	}
	return marshalWrapped(def.Storage.GV.String(), def.GVK(&def.Storage).Kind, obj)
}

// marshalWrapped is store.Wrap of Marshal, made in one piece of memory.
func marshalWrapped(apiVersion, name string, obj runtime.Object) ([]byte, error) {
	m, ok := obj.(sized)
	if !ok {
		raw, err := Marshal(obj)
		return store.Wrap(apiVersion, name, raw), err
	}
	n := m.Size()
	b := make([]byte, store.WrapSize(apiVersion, name, n))
	at := len(store.AppendWrapHead(b[:0], apiVersion, name, n))
	if wrote, err := m.MarshalToSizedBuffer(b[at : at+n]); err != nil || wrote != n {
		return nil, fmt.Errorf("a %s of %d bytes was written in %d: %w", name, n, wrote, err)
	}
	return store.AppendWrapTail(b[:at+n]), nil
}

// FromStored reads a stored value into the row's hub.
func FromStored(def *kind.Def, value []byte) (kind.Object, error) {
	if def.Loose != nil {
		return def.Loose.Decode(value)
	}
	raw, err := StoredMessage(def, value)
	if err != nil {
		return nil, err
	}
	return Unmarshal(def.Storage, raw)
}

// Marshal answers an object's message.
func Marshal(obj runtime.Object) ([]byte, error) {
	m, ok := obj.(message)
	if !ok {
		return nil, fmt.Errorf("%T has no protobuf form", obj)
	}
	return m.Marshal()
}

// Unmarshal reads a message of a version.
func Unmarshal(v kind.Version, raw []byte) (kind.Object, error) {
	obj := v.New()
	m, ok := obj.(message)
	if !ok {
		return nil, fmt.Errorf("%T has no protobuf form", obj)
	}
	if err := m.Unmarshal(raw); err != nil {
		return nil, fmt.Errorf("reading a stored %s: %w", v.GV, err)
	}
	if v.Read != nil {
		v.Read(obj)
	}
	return obj, nil
}

// JSONBody is an object's JSON without kind and apiVersion, as it stands in a list.
func JSONBody(obj runtime.Object) ([]byte, error) {
	obj.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{})
	return marshalJSON(obj)
}

var jsonBuffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// marshalJSON is json.Marshal as the API writes it: HTML characters are escaped, there is no trailing newline. The bytes
// may be kept for long, so they are exactly as many as are needed.
func marshalJSON(v any) ([]byte, error) {
	b := jsonBuffers.Get().(*bytes.Buffer)
	defer jsonBuffers.Put(b)
	b.Reset()
	if err := json.NewEncoder(b).Encode(v); err != nil {
		return nil, err
	}
	return bytes.Clone(bytes.TrimSuffix(b.Bytes(), []byte{'\n'})), nil
}

// WithKind puts kind and apiVersion in front of a JSONBody.
func WithKind(body []byte, gvk schema.GroupVersionKind) []byte {
	b := make([]byte, 0, len(body)+len(gvk.Kind)+len(gvk.Group)+len(gvk.Version)+32)
	return AppendWithKind(b, body, gvk)
}

// AppendWithKind is WithKind onto b.
func AppendWithKind(b, body []byte, gvk schema.GroupVersionKind) []byte {
	b = append(b, `{"kind":"`...)
	b = append(b, gvk.Kind...)
	b = append(b, `","apiVersion":"`...)
	b = append(b, gvk.GroupVersion().String()...)
	b = append(b, '"')
	if len(body) > 2 {
		b = append(b, ',')
	}
	return append(b, body[1:]...)
}
