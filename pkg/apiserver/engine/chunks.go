package engine

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"

	"google.golang.org/protobuf/encoding/protowire"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sextant-k8s/sextant/pkg/apiserver/codec"
	"github.com/sextant-k8s/sextant/pkg/apiserver/store"
)

// chunk is how much of a long answer is put together before it is written: a long list is never whole in memory.
const chunk = 32 << 10

var chunkPool = sync.Pool{New: func() any { return ptr(make([]byte, 0, chunk)) }}

// wrapTail ends every message's envelope.
var wrapTail = store.AppendWrapTail(nil)

// chunks writes many small pieces as few large ones.
type chunks struct {
	w   io.Writer
	buf []byte
	err error
}

func (k *chunks) add(piece []byte) {
	if len(k.buf)+len(piece) > chunk {
		k.flush()
	}
	if len(piece) > chunk {
		k.write(piece)
		return
	}
	k.buf = append(k.buf, piece...)
}

// field adds a field of a message.
func (k *chunks) field(num protowire.Number, value []byte) {
	var head [16]byte
	k.add(protowire.AppendVarint(protowire.AppendTag(head[:0], num, protowire.BytesType), uint64(len(value))))
	k.add(value)
}

func (k *chunks) flush() {
	k.write(k.buf)
	k.buf = k.buf[:0]
}

func (k *chunks) write(b []byte) {
	if k.err == nil && len(b) > 0 {
		_, k.err = k.w.Write(b)
	}
}

// stream answers what fill writes, size bytes long.
func (c *call) stream(code int, t codec.Target, size int, fill func(k *chunks)) error {
	h := c.w.Header()
	h.Set("Content-Type", t.Media.ContentType())
	h.Set("Cache-Control", "no-cache, private")
	buf := chunkPool.Get().(*[]byte)
	k := &chunks{w: c.w, buf: (*buf)[:0]}
	defer func() {
		if cap(k.buf) == chunk { // a large object is not kept
			*buf = k.buf[:0]
			chunkPool.Put(buf)
		}
	}()
	var z *gzip.Writer
	if size >= gzipFrom && strings.Contains(c.r.Header.Get("Accept-Encoding"), "gzip") {
		h.Set("Content-Encoding", "gzip")
		h.Add("Vary", "Accept-Encoding")
		z = zippers.Get().(*gzip.Writer)
		defer zippers.Put(z)
		z.Reset(c.w)
		k.w = z
	} else {
		h.Set("Content-Length", strconv.Itoa(size))
	}
	c.w.WriteHeader(code)
	fill(k)
	k.flush()
	if z != nil && k.err == nil {
		k.err = z.Close()
	}
	if k.err != nil {
		slog.Debug("the client went before its answer", "path", c.r.URL.Path, "err", k.err)
	}
	return nil
}

// Fields of every list message.
const (
	listMeta  = 1
	listItems = 2
)

// streamProto answers a page spliced from stored messages.
func (c *call) streamProto(t codec.Target, gvk schema.GroupVersionKind, p *page) error {
	meta, err := p.meta.Marshal()
	if err != nil {
		return err
	}
	n := 1 + protowire.SizeBytes(len(meta))
	for _, i := range p.items {
		n += 1 + protowire.SizeBytes(len(i.Proto))
	}
	api := gvk.GroupVersion().String()
	return c.stream(http.StatusOK, t, store.WrapSize(api, gvk.Kind, n), func(k *chunks) {
		k.add(store.AppendWrapHead(nil, api, gvk.Kind, n))
		k.field(listMeta, meta)
		for _, i := range p.items {
			k.field(listItems, i.Proto)
		}
		k.add(wrapTail)
	})
}

// streamJSON answers a page spliced from the items' JSON, or what is made of that.
func (c *call) streamJSON(t codec.Target, gvk schema.GroupVersionKind, p *page) error {
	meta, err := json.Marshal(p.meta)
	if err != nil {
		return err
	}
	if c.def.Loose != nil && p.meta.Continue == "" { // whose lists say that there is no more
		meta = append([]byte(`{"continue":"",`), meta[1:]...)
	}
	head := slices.Concat(codec.WithKind([]byte(`{"metadata":`), gvk), meta, []byte(`,"items":[`))
	tail := []byte("]}\n")
	bodies, size := make([][]byte, len(p.items)), len(head)+len(tail)+max(len(p.items)-1, 0)
	for n, i := range p.items {
		if bodies[n], err = i.JSON(); err != nil {
			return err
		}
		if c.def.Loose != nil { // whose items carry their kind
			bodies[n] = codec.WithKind(bodies[n], c.gvk())
		}
		size += len(bodies[n])
	}
	fill := func(k *chunks) {
		k.add(head)
		for n, body := range bodies {
			if n > 0 {
				k.add([]byte{','})
			}
			k.add(body)
		}
		k.add(tail)
	}
	if t.Media == codec.JSON && !t.Pretty {
		return c.stream(http.StatusOK, t, size, fill)
	}
	var whole bytes.Buffer
	k := &chunks{w: &whole}
	fill(k)
	k.flush()
	b, err := codec.Finish(bytes.TrimSuffix(whole.Bytes(), []byte{'\n'}), t)
	if err != nil {
		return err
	}
	return c.send(http.StatusOK, t, b)
}
