// Package openapi serves what the API looks like: OpenAPI v2 as one document and v3 as one per group and version. By
// them kubectl decides how to validate, merges patches and explains.
//
// The flow: rows -> paths and operations; the paths -> which models they reach; the models stand ready as JSON in both
// forms, compressed in the binary, as internal/generate made them of the published Go types. A document is put together
// for one answer and forgotten: it is rarely asked for, and large. Only the documents' hashes are kept. A Handler is safe
// for concurrent use; it makes one document at a time.
package openapi

import (
	"bytes"
	"cmp"
	"crypto/sha512"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/munnerz/goautoneg"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

// Where the documents are.
const (
	rootV2 = "/openapi/v2"
	rootV3 = "/openapi/v3"
)

// The media types, as they are answered and as clients that are older ask for them.
const (
	jsonType   = "application/json"
	protoV2    = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
	oldProtoV2 = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
	protoV3    = "application/com.github.proto-openapi.spec.v3.v1.0+protobuf"
	oldProtoV3 = "application/com.github.proto-openapi.spec.v3@v1.0+protobuf"
)

// Handler serves the documents.
type Handler struct {
	release string
	rows    []*kind.Def
	docs    atomic.Pointer[map[string]*source] // by path below v3's root: "api/v1", "apis/apps/v1"; replaced under mu, never changed

	mu      sync.Mutex
	tags    map[string]string // by the same, "" is v2's
	foreign []Foreign
	idle    *time.Timer
}

// source is what a v3 document is about.
type source struct {
	gv   schema.GroupVersion
	rows []row
}

// row is one served version of a kind.
type row struct {
	def *kind.Def
	ver *kind.Version
}

// New makes the handler of these kinds; release is the API's version as documents state it.
func New(defs []*kind.Def, release string) *Handler {
	h := &Handler{release: release, rows: defs, tags: map[string]string{}}
	h.Extend(nil)
	return h
}

// Extend describes these rows too, and no longer those told to it before.
func (h *Handler) Extend(more []*kind.Def) {
	docs := map[string]*source{}
	for _, k := range []string{"api", "apis", "version", "openid/v1/jwks", ".well-known/openid-configuration"} {
		docs[k] = &source{}
	}
	more = slices.Clone(more)
	slices.SortFunc(more, func(a, b *kind.Def) int { return cmp.Compare(a.Resource, b.Resource) })
	for _, d := range slices.Concat(h.rows, more) {
		for i := range d.Versions {
			gv := d.Versions[i].GV
			key := below(gv)
			if docs[key] == nil {
				docs[key] = &source{gv: gv}
			}
			docs[key].rows = append(docs[key].rows, row{d, &d.Versions[i]})
			if gv.Group != "" {
				docs["apis/"+gv.Group] = &source{gv: schema.GroupVersion{Group: gv.Group}}
			}
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	var was map[string]*source
	if p := h.docs.Load(); p != nil {
		was = *p
	}
	for key := range h.tags {
		if !same(was[key], docs[key]) {
			delete(h.tags, key)
		}
	}
	h.docs.Store(&docs)
}

// same tells whether two documents are about the very same rows; v2's, which has no source, is about all.
func same(a, b *source) bool {
	return a != nil && b != nil && slices.EqualFunc(a.rows, b.rows, func(x, y row) bool { return x.ver == y.ver })
}

func below(gv schema.GroupVersion) string {
	if gv.Group == "" {
		return "api/" + gv.Version
	}
	return "apis/" + gv.String()
}

// Serves tells whether the path is one of the documents or their index.
func (h *Handler) Serves(path string) bool {
	key, ok := strings.CutPrefix(path, rootV3+"/")
	return path == rootV2 || path == rootV3 || ok && (*h.docs.Load())[key] != nil
}

// ServeHTTP answers the index or a document, as JSON or protobuf.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "405: Method Not Allowed", http.StatusMethodNotAllowed)
		return
	}
	if r.URL.Path == rootV3 {
		h.index(w, r)
		return
	}
	key, v3 := strings.CutPrefix(r.URL.Path, rootV3+"/")
	if !v3 {
		key = ""
	}
	w.Header().Set("Vary", "Accept")
	media := negotiate(r.Header.Get("Accept"), v3)
	if media == "" {
		w.WriteHeader(http.StatusNotAcceptable)
		return
	}
	body, tag, err := h.make(key, media, r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Cache-Control", "no-cache, private")
	if hash := r.URL.Query().Get("hash"); v3 && hash != "" {
		if hash != tag {
			http.Redirect(w, r, address(key, tag), http.StatusMovedPermanently)
			return
		}
		w.Header().Set("Cache-Control", "public, immutable")
		w.Header().Set("Expires", time.Now().UTC().AddDate(1, 0, 0).Format(http.TimeFormat))
	}
	answer(w, r, media, tag, body)
}

// answer sends a body, or that the client's is still the one.
func answer(w http.ResponseWriter, r *http.Request, media, tag string, body []byte) {
	w.Header().Set("Content-Type", media)
	w.Header().Set("ETag", `"`+tag+`"`)
	if r.Header.Get("If-None-Match") == `"`+tag+`"` {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	if r.Method != http.MethodHead {
		_, _ = w.Write(body) // a client that went has nothing to be told
	}
}

// negotiate picks the media type, "" if none fits.
func negotiate(accept string, v3 bool) string {
	if accept == "" {
		accept = "*/*"
	}
	serves := map[string]string{"application/json": jsonType, "*/*": jsonType, "application/*": jsonType, protoV2: protoV2, oldProtoV2: protoV2}
	if v3 {
		serves = map[string]string{"application/json": jsonType, "*/*": jsonType, "application/*": jsonType, protoV3: protoV3, oldProtoV3: protoV3}
	}
	for _, c := range goautoneg.ParseAccept(accept) {
		if m := serves[c.Type+"/"+c.SubType]; m != "" {
			return m
		}
	}
	return ""
}

// index answers the list of v3's documents, each with its hash.
func (h *Handler) index(w http.ResponseWriter, r *http.Request) {
	text, err := h.list()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	answer(w, r, jsonType, hash(text), text)
}

// list is the index. The first time every document is made for its hash.
func (h *Handler) list() ([]byte, error) {
	paths := map[string]any{}
	var all models
	h.mu.Lock()
	defer h.mu.Unlock()
	for key := range *h.docs.Load() {
		if h.tags[key] == "" {
			if all == nil {
				var err error
				if all, err = unpack(); err != nil {
					return nil, err
				}
			}
			sum := sha512.New()
			if err := h.document(key, all).json(sum); err != nil {
				return nil, err
			}
			h.tags[key] = fmt.Sprintf("%X", sum.Sum(nil))
			h.rest()
		}
		paths[key] = map[string]string{"serverRelativeURL": address(key, h.tags[key])}
	}
	for _, f := range h.foreign {
		if f.Hash != "" && paths[f.Key] == nil {
			paths[f.Key] = map[string]string{"serverRelativeURL": address(f.Key, f.Hash)}
		}
	}
	return json.Marshal(map[string]any{"paths": paths})
}

// address is where a v3 document of that hash is.
func address(key, tag string) string { return rootV3 + "/" + key + "?hash=" + tag }

func hash(text []byte) string { return fmt.Sprintf("%X", sha512.Sum512(text)) }

// make answers a document and its hash, which is that of its JSON. The body is nil if the request needs none.
func (h *Handler) make(key, media string, r *http.Request) ([]byte, string, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if tag := h.tags[key]; tag != "" && r.Header.Get("If-None-Match") == `"`+tag+`"` {
		return nil, tag, nil
	}
	h.rest()
	all, err := unpack()
	if err != nil {
		return nil, "", err
	}
	d := h.document(key, all)
	if h.tags[key] == "" || media == jsonType {
		var text bytes.Buffer
		if err := d.json(&text); err != nil {
			return nil, "", err
		}
		h.tags[key] = hash(text.Bytes())
		if media == jsonType {
			return text.Bytes(), h.tags[key], nil
		}
	}
	body, err := d.proto()
	return body, h.tags[key], err
}

// quiet is how long nothing is made before the memory that it took is given back.
const quiet = 10 * time.Second

// rest starts the wait for quiet anew. A document takes more memory than all else does between two of the collector's
// rounds, and the collector by itself would keep that for the next one, which may never come. h.mu is held.
func (h *Handler) rest() {
	if h.idle == nil {
		h.idle = time.AfterFunc(quiet, debug.FreeOSMemory)
		return
	}
	h.idle.Reset(quiet)
}

// document is v3's of that key, or v2's if it is "".
func (h *Handler) document(key string, all models) *document {
	s, docs := newSurveyor(all), *h.docs.Load()
	info := object{"title": "Kubernetes", "version": h.release}
	if key != "" {
		if docs[key] != nil { // it may have gone since it was asked for
			s.survey(key, docs[key])
		}
		return &document{v3: true, models: all, items: s.sorted(), head: object{"openapi": "3.0.0", "info": info}}
	}
	for _, k := range sortedKeys(docs) {
		s.survey(k, docs[k])
	}
	raw := map[string]json.RawMessage{}
	for _, f := range h.foreign {
		for n, text := range f.Definitions {
			if _, known := all[n]; !known {
				all[n] = model{refs: strings.Join(referred(text, definitionsV2), ","), v2: text}
			}
		}
		maps.Copy(raw, f.Paths)
	}
	return &document{models: all, items: s.sorted(), raw: raw, head: object{
		"swagger": "2.0", "info": info, "security": []object{{"BearerToken": []string{}}},
		"securityDefinitions": object{"BearerToken": object{
			"description": "Bearer Token authentication", "in": "header", "name": "authorization", "type": "apiKey",
		}},
	}}
}

func (s *surveyor) survey(key string, from *source) {
	s.plain(key, from.gv)
	for _, r := range from.rows {
		s.row(r)
	}
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }
