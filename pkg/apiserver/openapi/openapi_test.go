package openapi

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	openapiv2 "github.com/google/gnostic-models/openapiv2"
	openapiv3 "github.com/google/gnostic-models/openapiv3"
	"google.golang.org/protobuf/proto"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kinds"
)

func get(t *testing.T, h *Handler, url, accept string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest("GET", url, nil)
	r.Header.Set("Accept", accept)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if w.Code != 200 {
		t.Fatalf("%s: %d %.300s", url, w.Code, w.Body)
	}
	return w
}

// addresses reads the index.
func addresses(t *testing.T, h *Handler) map[string]string {
	var list struct {
		Paths map[string]struct{ ServerRelativeURL string }
	}
	if err := json.Unmarshal(get(t, h, rootV3, "").Body.Bytes(), &list); err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for k, v := range list.Paths {
		out[k] = v.ServerRelativeURL
	}
	return out
}

// TestUnchangedIsNotSentAgain follows a client from the list to a document and back with its tag, and with a hash that
// is no longer the document's.
func TestUnchangedIsNotSentAgain(t *testing.T) {
	h := New(kinds.All(kinds.Deps{}), "v1.37.2")
	url := addresses(t, h)["apis/apps/v1"]
	w := get(t, h, url, jsonType)
	if !strings.Contains(w.Body.String(), "io.k8s.api.apps.v1.Deployment") || w.Header().Get("Cache-Control") != "public, immutable" {
		t.Fatalf("%s: %v %.200s", url, w.Header(), w.Body)
	}
	r := httptest.NewRequest("GET", url, nil)
	r.Header.Set("If-None-Match", w.Header().Get("ETag"))
	w = httptest.NewRecorder()
	if h.ServeHTTP(w, r); w.Code != http.StatusNotModified {
		t.Errorf("with its tag: %d", w.Code)
	}
	w = httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", rootV3+"/apis/apps/v1?hash=OLD", nil))
	if w.Code != http.StatusMovedPermanently || w.Header().Get("Location") != url {
		t.Errorf("with an old hash: %d %s", w.Code, w.Header().Get("Location"))
	}
	r = httptest.NewRequest("GET", rootV2, nil)
	r.Header.Set("Accept", "text/html")
	w = httptest.NewRecorder()
	if h.ServeHTTP(w, r); w.Code != http.StatusNotAcceptable {
		t.Errorf("as HTML: %d", w.Code)
	}
}

// TestV3IsWhole reads every v3 document: no reference leads nowhere, and the protobuf form holds as much as the JSON.
func TestV3IsWhole(t *testing.T) {
	h := New(kinds.All(kinds.Deps{}), "v1.37.2")
	for key, url := range addresses(t, h) {
		var doc struct {
			Paths      map[string]any
			Components struct{ Schemas map[string]any }
		}
		text := get(t, h, url, jsonType).Body.Bytes()
		if err := json.Unmarshal(text, &doc); err != nil {
			t.Fatalf("%s: %v", key, err)
		}
		for _, ref := range strings.Split(string(text), `"$ref":"#/components/schemas/`)[1:] {
			name, _, _ := strings.Cut(ref, `"`)
			if doc.Components.Schemas[name] == nil {
				t.Errorf("%s: nothing is %s", key, name)
			}
		}
		if key != "apis/apps/v1" && key != "version" {
			continue // the encoding is one and the same, and slow
		}
		var m openapiv3.Document
		if err := proto.Unmarshal(get(t, h, url, oldProtoV3).Body.Bytes(), &m); err != nil {
			t.Fatalf("%s: %v", key, err)
		}
		if p, s := len(m.GetPaths().GetPath()), len(m.GetComponents().GetSchemas().GetAdditionalProperties()); p != len(doc.Paths) || s != len(doc.Components.Schemas) {
			t.Errorf("%s: %d paths and %d schemas as protobuf, %d and %d as JSON", key, p, s, len(doc.Paths), len(doc.Components.Schemas))
		}
	}
}

// TestV2AsProtobuf decodes it as clients do and compares with what the library makes of the JSON as a whole.
func TestV2AsProtobuf(t *testing.T) {
	h := New(kinds.All(kinds.Deps{}), "v1.37.2")
	var m openapiv2.Document
	w := get(t, h, rootV2, oldProtoV2)
	if err := proto.Unmarshal(w.Body.Bytes(), &m); err != nil || w.Header().Get("Content-Type") != protoV2 {
		t.Fatalf("%v, %s", err, w.Header().Get("Content-Type"))
	}
	whole, err := openapiv2.ParseDocument(get(t, h, rootV2, jsonType).Body.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if !proto.Equal(&m, whole) {
		t.Errorf("%d definitions and %d paths, not equal to the JSON's %d and %d", len(m.GetDefinitions().GetAdditionalProperties()), len(m.GetPaths().GetPath()),
			len(whole.GetDefinitions().GetAdditionalProperties()), len(whole.GetPaths().GetPath()))
	}
}

// TestV3TellsMore holds what v2 does not tell: defaults, and references that say something besides.
func TestV3TellsMore(t *testing.T) {
	h := New(kinds.All(kinds.Deps{}), "v1.37.2")
	text := get(t, h, rootV3+"/apis/apps/v1", "").Body.Bytes()
	var doc struct {
		Paths      map[string]map[string]json.RawMessage
		Components struct{ Schemas map[string]map[string]any }
	}
	if err := json.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	var patch struct {
		RequestBody struct{ Content map[string]any }
		Parameters  []struct{ Name, In string }
	}
	if err := json.Unmarshal(doc.Paths["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"], &patch); err != nil {
		t.Fatal(err)
	}
	spec := doc.Components.Schemas["io.k8s.api.apps.v1.DeploymentSpec"]["properties"].(map[string]any)["template"].(map[string]any)
	if _, ok := spec["default"]; !ok || spec["allOf"] == nil {
		t.Errorf("a deployment's template is %v", spec)
	}
	port := doc.Components.Schemas["io.k8s.api.core.v1.ContainerPort"]["properties"].(map[string]any)["protocol"].(map[string]any)
	if port["default"] != "TCP" {
		t.Errorf("a port's protocol is %v", port)
	}
	if got := sortedKeys(patch.RequestBody.Content); !slices.Equal(got, slices.Sorted(slices.Values(patchMedia))) {
		t.Errorf("a patch is sent as %v", got)
	}
	// kubectl asks whether the server validates fields itself.
	if !slices.ContainsFunc(patch.Parameters, func(p struct{ Name, In string }) bool { return p.Name == "fieldValidation" && p.In == "query" }) {
		t.Errorf("a patch takes %v", patch.Parameters)
	}
}
