package engine

import (
	"bytes"
	"compress/gzip"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sextant-k8s/sextant/pkg/apiserver/cache"
	"github.com/sextant-k8s/sextant/pkg/apiserver/codec"
	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/pkg/apiserver/store"
)

// gzipFrom is the size from which an answer is compressed for those who accept it.
const gzipFrom = 128 << 10

// send answers bytes in the target's media.
func (c *call) send(code int, t codec.Target, b []byte) error {
	h := c.w.Header()
	h.Set("Content-Type", t.Media.ContentType())
	h.Set("Cache-Control", "no-cache, private")
	if len(b) >= gzipFrom && strings.Contains(c.r.Header.Get("Accept-Encoding"), "gzip") {
		h.Set("Content-Encoding", "gzip")
		h.Add("Vary", "Accept-Encoding")
		c.w.WriteHeader(code)
		zip(c.w, b)
		return nil
	}
	h.Set("Content-Length", strconv.Itoa(len(b)))
	c.w.WriteHeader(code)
	if _, err := c.w.Write(b); err != nil {
		slog.Debug("the client went before its answer", "path", c.r.URL.Path, "err", err)
	}
	return nil
}

var zippers = sync.Pool{New: func() any {
	z, _ := gzip.NewWriterLevel(nil, gzip.BestSpeed)
	return z
}}

func zip(w io.Writer, b []byte) {
	z := zippers.Get().(*gzip.Writer)
	defer zippers.Put(z)
	z.Reset(w)
	_, err := z.Write(b)
	if cerr := z.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		slog.Debug("the client went before its answer", "err", err)
	}
}

// sendItem answers a cached item: spliced if the client wants the storage version as it is.
func (c *call) sendItem(code int, t codec.Target, i *cache.Item) error {
	if t.As == "" && t.Media == codec.Proto && c.asStored() {
		gvk := c.gvk()
		api := gvk.GroupVersion().String()
		return c.stream(code, t, store.WrapSize(api, gvk.Kind, len(i.Proto)), func(k *chunks) {
			k.buf = store.AppendWrapHead(k.buf, api, gvk.Kind, len(i.Proto))
			k.add(i.Proto)
			k.add(wrapTail)
		})
	}
	b, err := c.encodeItem(t, i)
	if err != nil {
		return err
	}
	if t.Media == codec.JSON && t.As == "" && !t.Pretty {
		b = append(b, '\n')
	}
	return c.send(code, t, b)
}

// encodeItem encodes an item as the target wants it, JSON without a final newline.
func (c *call) encodeItem(t codec.Target, i *cache.Item) ([]byte, error) {
	if t.As == "" && c.asStored() {
		gvk := c.gvk()
		switch t.Media {
		case codec.Proto:
			return store.Wrap(gvk.GroupVersion().String(), gvk.Kind, i.Proto), nil
		case codec.JSON:
			body, err := i.JSON()
			if err != nil {
				return nil, err
			}
			if b := codec.WithKind(body, gvk); !t.Pretty {
				return b, nil
			}
		}
	}
	if t.As == "PartialObjectMetadata" && t.Media == codec.Proto && c.def.Loose == nil {
		return partialProto(t, i)
	}
	obj, err := c.object(i)
	if err != nil {
		return nil, err
	}
	return c.encodeHub(t, obj)
}

// encodeHub encodes a hub object in the version and form asked for, JSON without a final newline.
func (c *call) encodeHub(t codec.Target, hub kind.Object) ([]byte, error) {
	var out runtime.Object
	gvk := c.gvk()
	var err error
	switch t.As {
	case "Table":
		gvk = t.AsGV.WithKind("Table")
		out, err = c.table([]kind.Object{hub}, &metav1.ListMeta{ResourceVersion: hub.GetResourceVersion()})
	case "PartialObjectMetadata":
		gvk = t.AsGV.WithKind("PartialObjectMetadata")
		out = partial(hub)
	default:
		out, err = c.ver.Of(hub)
	}
	if err != nil {
		return nil, err
	}
	b, err := codec.Encode(out, gvk, t)
	if err == nil && t.Media == codec.JSON && len(b) > 0 && b[len(b)-1] == '\n' {
		b = b[:len(b)-1]
	}
	return b, err
}

// sendHub answers an object that was just written.
func (c *call) sendHub(code int, hub kind.Object) error {
	t, err := c.target()
	if err != nil {
		return err
	}
	if w := &c.written; w.obj == hub && t.As == "" && t.Media == codec.Proto && c.asStored() && c.def.Loose == nil {
		return c.sendWritten(code, t)
	}
	b, err := c.encodeHub(t, hub)
	if err != nil {
		return err
	}
	if t.As == "" && c.def.Loose == nil && c.def.Virtual == nil && showsEmpty(t.Media, b) {
		if hub, err = c.readBack(hub); err != nil {
			return err
		}
		if b, err = c.encodeHub(t, hub); err != nil {
			return err
		}
	}
	if t.Media == codec.JSON && !t.Pretty {
		b = append(b, '\n')
	}
	return c.send(code, t, b)
}

// showsEmpty tells whether an encoded object may have a list without entries, which is no list once it is stored.
func showsEmpty(m codec.Media, b []byte) bool {
	if m == codec.CBOR {
		return bytes.IndexByte(b, 0x80) >= 0
	}
	return m != codec.Proto && bytes.Contains(b, []byte("[]"))
}

// readBack is an object as it will be read.
func (c *call) readBack(hub kind.Object) (kind.Object, error) {
	value, err := codec.StoredValue(c.def, hub)
	if err != nil {
		return nil, err
	}
	o, err := codec.FromStored(c.def, value)
	if err != nil {
		return nil, err
	}
	o.SetResourceVersion(hub.GetResourceVersion())
	return o, nil
}

// sendWritten answers what was just stored, with its revision.
func (c *call) sendWritten(code int, t codec.Target) error {
	_, _, raw, err := store.Unwrap(c.written.value)
	if err != nil {
		return err
	}
	r, err := store.Revise(raw, c.written.rev)
	if err != nil {
		return err
	}
	gvk := c.gvk()
	api, n := gvk.GroupVersion().String(), r.Size()
	return c.stream(code, t, store.WrapSize(api, gvk.Kind, n), func(k *chunks) {
		k.buf = store.AppendWrapTail(r.Append(store.AppendWrapHead(k.buf, api, gvk.Kind, n)))
	})
}

// sendObject answers any object, as it is.
func (c *call) sendObject(code int, obj runtime.Object, gvk schema.GroupVersionKind) error {
	t, err := codec.Negotiate(c.r, false)
	if err != nil {
		t = codec.Target{Media: codec.JSON}
	}
	b, err := codec.Encode(obj, gvk, t)
	if err != nil {
		return err
	}
	return c.send(code, t, b)
}

// negotiate picks the form of the answer among what the kind has.
func (c *call) negotiate() (codec.Target, error) {
	if c.def.Loose != nil {
		return codec.NegotiateLoose(c.r, true)
	}
	return codec.Negotiate(c.r, true)
}

// target is the form of a single object's answer; a list's partial form means a single one's here.
func (c *call) target() (codec.Target, error) {
	t, err := c.negotiate()
	if t.As == "PartialObjectMetadataList" {
		t.As = "PartialObjectMetadata"
	}
	return t, err
}

func partial(obj kind.Object) *metav1.PartialObjectMetadata {
	return &metav1.PartialObjectMetadata{ObjectMeta: *metaOf(obj)}
}

// metaOf answers the ObjectMeta that every API type embeds.
func metaOf(obj kind.Object) *metav1.ObjectMeta {
	return obj.(metav1.ObjectMetaAccessor).GetObjectMeta().(*metav1.ObjectMeta)
}

// partialProto cuts the metadata out of the stored message: a PartialObjectMetadata is its field 1 alone.
func partialProto(t codec.Target, i *cache.Item) ([]byte, error) {
	at, _, end, err := store.Metadata(i.Proto)
	if err != nil {
		return nil, err
	}
	return store.Wrap(t.AsGV.String(), "PartialObjectMetadata", i.Proto[at:end]), nil
}

// created is the code of a write.
func created(yes bool) int {
	if yes {
		return http.StatusCreated
	}
	return http.StatusOK
}
