package openapi

import (
	"bufio"
	"compress/gzip"
	"encoding/json"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kinds"
)

type definition struct {
	Properties map[string]json.RawMessage `json:"properties"`
}

// gone are the fields that 1.37's published types no longer have: both were alpha.
var gone = map[string]bool{
	"io.k8s.api.resource.v1.Device.nodeAllocatableResourceMappings":   true,
	"io.k8s.api.core.v1.NodeAllocatableResourceClaimStatus.resources": true,
}

// TestDefinitionsAsRecorded holds every definition that upstream 1.36 publishes, and we too, to its fields.
func TestDefinitionsAsRecorded(t *testing.T) {
	h := New(kinds.All(kinds.Deps{}), "v1.37.2")
	ours := map[string]definition{}
	for key := range h.groups {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", root+"/"+key, nil))
		var doc struct {
			Components struct{ Schemas map[string]definition }
		}
		if err := json.Unmarshal(w.Body.Bytes(), &doc); err != nil {
			t.Fatalf("%s: %v", key, err)
		}
		for name, d := range doc.Components.Schemas {
			ours[name] = d
		}
	}
	compared := 0
	for name, theirs := range recorded(t) {
		d, ok := ours[name]
		if !ok {
			continue
		}
		compared++
		for p := range theirs.Properties {
			if _, ok := d.Properties[p]; !ok && !gone[name+"."+p] {
				t.Errorf("%s lacks %s", name, p)
			}
		}
	}
	if compared < 480 {
		t.Errorf("only %d definitions were found in both", compared)
	}
}

func recorded(t *testing.T) map[string]definition {
	f, err := os.Open("testdata/definitions-1.36.jsonl.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]definition{}
	in := bufio.NewScanner(z)
	in.Buffer(nil, 1<<22)
	for in.Scan() {
		var line struct {
			Definition string
			Schema     definition
		}
		if err := json.Unmarshal(in.Bytes(), &line); err != nil {
			t.Fatal(err)
		}
		out[line.Definition] = line.Schema
	}
	if in.Err() != nil {
		t.Fatal(in.Err())
	}
	return out
}

// TestUnchangedIsNotSentAgain follows a client from the list to a document and back with its tag.
func TestUnchangedIsNotSentAgain(t *testing.T) {
	h := New(kinds.All(kinds.Deps{}), "v1.37.2")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", root, nil))
	var list struct {
		Paths map[string]struct{ ServerRelativeURL string }
	}
	if err := json.Unmarshal(w.Body.Bytes(), &list); err != nil {
		t.Fatal(err)
	}
	url := list.Paths["apis/apps/v1"].ServerRelativeURL
	w = httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", url, nil))
	if w.Code != 200 || !strings.Contains(w.Body.String(), "io.k8s.api.apps.v1.Deployment") {
		t.Fatalf("%s: %d %.200s", url, w.Code, w.Body)
	}
	r := httptest.NewRequest("GET", url, nil)
	r.Header.Set("If-None-Match", w.Header().Get("ETag"))
	w = httptest.NewRecorder()
	if h.ServeHTTP(w, r); w.Code != 304 {
		t.Fatalf("with its tag: %d", w.Code)
	}
}
