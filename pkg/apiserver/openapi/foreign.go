package openapi

import (
	"encoding/json"
	"fmt"
	"net/http"

	openapiv3 "github.com/google/gnostic-models/openapiv3"
	"google.golang.org/protobuf/proto"
	"k8s.io/kube-openapi/pkg/openapiconv"
	"k8s.io/kube-openapi/pkg/validation/spec"
)

// Foreign is what another server behind this one says of a group and version.
type Foreign struct {
	Key  string // of its v3 document: "apis/wardle.example.com/v1"
	Hash string // of that document, which it serves itself unless V3 is set; "" if there is none
	V3   []byte // what its v2 says in the words of v3, for one that has v2 only
	// Paths and Definitions are its part of v2, as it wrote them.
	Paths, Definitions map[string]json.RawMessage
}

// Join describes what other servers serve too, and no longer what was told of them before.
func (h *Handler) Join(foreign []Foreign) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.foreign = foreign
	delete(h.tags, "")
}

// Translate makes the document of v3 out of what a server says in v2.
func (f *Foreign) Translate() error {
	text, err := json.Marshal(map[string]any{"swagger": "2.0", "info": map[string]string{"title": "Kubernetes", "version": "unversioned"}, "paths": f.Paths, "definitions": f.Definitions})
	if err != nil {
		return err
	}
	v2 := &spec.Swagger{}
	if err := json.Unmarshal(text, v2); err != nil {
		return fmt.Errorf("reading the OpenAPI of %s: %w", f.Key, err)
	}
	v3 := openapiconv.ConvertV2ToV3(v2)
	if f.V3, err = json.Marshal(v3); err != nil {
		return fmt.Errorf("writing the OpenAPI of %s: %w", f.Key, err)
	}
	f.Hash = hash(f.V3)
	return nil
}

// ServeHTTP answers the document that was translated.
func (f *Foreign) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	media, body := negotiate(r.Header.Get("Accept"), true), f.V3
	switch media {
	case "":
		w.WriteHeader(http.StatusNotAcceptable)
		return
	case protoV3:
		m, err := openapiv3.ParseDocument(f.V3)
		if err == nil {
			body, err = proto.Marshal(m)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
	}
	w.Header().Set("Vary", "Accept")
	answer(w, r, media, f.Hash, body)
}
