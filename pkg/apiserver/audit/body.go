package audit

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
	"sigs.k8s.io/yaml"

	"github.com/sextant-k8s/sextant/staging/api/scheme"
)

// maxBody is how many bytes of a body are kept; a larger one is left out of its event.
const maxBody = 3 << 20

// taken is a copy of what went by.
type taken struct {
	buf bytes.Buffer
	cut bool // there was more than limit
}

func (t *taken) take(b []byte, limit int) {
	if t.cut || t.buf.Len()+len(b) > limit {
		t.cut = true
		t.buf = bytes.Buffer{}
		return
	}
	t.buf.Write(b)
}

// tee copies a request's body as it is read.
type tee struct {
	io.ReadCloser
	into *taken
}

// Read reads, and remembers.
func (t *tee) Read(b []byte) (int, error) {
	n, err := t.ReadCloser.Read(b)
	t.into.take(b[:n], maxBody)
	return n, err
}

// What of an answer is kept.
const (
	keepNone = iota
	keepStatus
	keepAll
)

// maxStatus is how many bytes an answer may have to be looked at for a Status.
const maxStatus = 64 << 10

// Answer is a response on its way through a trail.
type Answer struct {
	http.ResponseWriter
	t    *Trail
	code int
	keep int
	body taken
}

// Wrap makes the response pass through the trail.
func (t *Trail) Wrap(w http.ResponseWriter) *Answer { return &Answer{ResponseWriter: w, t: t} }

// WriteHeader notes the code and decides what to keep of what follows.
func (a *Answer) WriteHeader(code int) {
	if a.code == 0 && code >= http.StatusOK || code == http.StatusSwitchingProtocols {
		a.code = code
		switch {
		case a.t.long && code < http.StatusBadRequest || a.t.ev.ObjectRef == nil:
		case a.t.ev.Level == auditv1.LevelRequestResponse:
			a.keep = keepAll
		case code >= http.StatusBadRequest || strings.HasPrefix(a.t.ev.Verb, "delete"):
			a.keep = keepStatus
		}
		a.t.responding(code)
	}
	a.ResponseWriter.WriteHeader(code)
}

// Write lets the answer through, and keeps what is to be kept.
func (a *Answer) Write(b []byte) (int, error) {
	if a.code == 0 {
		a.WriteHeader(http.StatusOK)
	}
	switch a.keep {
	case keepAll:
		a.body.take(b, maxBody)
	case keepStatus:
		a.body.take(b, maxStatus)
	}
	return a.ResponseWriter.Write(b)
}

// Unwrap lets deadlines through.
func (a *Answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// Hijack hands the connection over to a stream.
func (a *Answer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(a.ResponseWriter).Hijack()
	if err == nil && a.code == 0 {
		a.code = http.StatusSwitchingProtocols
		a.t.responding(a.code)
	}
	return conn, rw, err
}

// Flush sends what has been written so far.
func (a *Answer) Flush() { _ = a.FlushError() } // a client that went notices by itself

// FlushError is Flush for those who want to know.
func (a *Answer) FlushError() error {
	if a.code == 0 {
		a.WriteHeader(http.StatusOK)
	}
	return http.NewResponseController(a.ResponseWriter).Flush()
}

func (a *Answer) status() int {
	if a.code == 0 {
		return http.StatusOK
	}
	return a.code
}

var protobufs = protobuf.NewSerializer(scheme.Scheme, scheme.Scheme)

// object makes JSON of a body; nil if it was too large or is nothing that could be read.
func object(b *taken, media, encoding string, omitManaged bool) *runtime.Unknown {
	raw := b.buf.Bytes()
	if b.cut || len(raw) == 0 {
		return nil
	}
	if encoding == "gzip" {
		z, err := gzip.NewReader(bytes.NewReader(raw))
		if err != nil {
			return nil
		}
		if raw, err = io.ReadAll(io.LimitReader(z, 4*maxBody)); err != nil {
			return nil
		}
	}
	switch {
	case strings.HasPrefix(media, "application/vnd.kubernetes.protobuf"):
		obj, _, err := protobufs.Decode(raw, nil, nil)
		if err != nil {
			return nil
		}
		if raw, err = json.Marshal(obj); err != nil {
			return nil
		}
	case strings.Contains(media, "yaml"):
		var err error
		if raw, err = yaml.YAMLToJSON(raw); err != nil {
			return nil
		}
	}
	if !json.Valid(raw) {
		return nil
	}
	if omitManaged && bytes.Contains(raw, []byte(`"managedFields"`)) {
		raw = withoutManaged(raw)
	}
	return unknown(bytes.TrimSpace(raw))
}

// withoutManaged drops managedFields of an object, or of each object of a list or table.
func withoutManaged(raw []byte) []byte {
	var v map[string]any
	if json.Unmarshal(raw, &v) != nil {
		return raw
	}
	drop(v)
	for _, list := range []string{"items", "rows"} {
		items, _ := v[list].([]any)
		for _, i := range items {
			m, _ := i.(map[string]any)
			if list == "rows" {
				m, _ = m["object"].(map[string]any)
			}
			drop(m)
		}
	}
	out, err := json.Marshal(v)
	if err != nil {
		return raw
	}
	return out
}

func drop(obj map[string]any) {
	if m, ok := obj["metadata"].(map[string]any); ok {
		delete(m, "managedFields")
	}
}
