// Package openapi serves the OpenAPI v3 documents, one per group and version: which paths there are and which
// parameters they take, by which kubectl decides how to validate, and what the kinds look like, which explain prints.
//
// The flow: rows -> paths, Go types -> schemas (their own documentation and model names) -> JSON. A document is made when
// it is asked for and not kept: it is rarely asked for, and large. A Handler does not change after New and is safe for
// concurrent use.
package openapi

import (
	"crypto/sha512"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

// root is where the documents are.
const root = "/openapi/v3"

// Handler serves the documents.
type Handler struct {
	release string
	groups  map[string][]row // by path below the root: "api/v1", "apis/apps/v1"
}

// row is one served version of a kind.
type row struct {
	def *kind.Def
	ver *kind.Version
}

// New makes the handler of these kinds; release is the API's version as documents state it.
func New(defs []*kind.Def, release string) *Handler {
	h := &Handler{release: release, groups: map[string][]row{}}
	for _, d := range defs {
		for i := range d.Versions {
			v := &d.Versions[i]
			h.groups[below(v.GV)] = append(h.groups[below(v.GV)], row{d, v})
		}
	}
	return h
}

func below(gv schema.GroupVersion) string {
	if gv.Group == "" {
		return "api/" + gv.Version
	}
	return "apis/" + gv.String()
}

// Serves tells whether the path is one of the documents or their index.
func (h *Handler) Serves(path string) bool {
	return path == root || h.groups[strings.TrimPrefix(path, root+"/")] != nil && strings.HasPrefix(path, root+"/")
}

// ServeHTTP answers a document as JSON.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var doc any
	if r.URL.Path == root {
		paths := map[string]any{}
		for p := range h.groups {
			paths[p] = map[string]string{"serverRelativeURL": root + "/" + p}
		}
		doc = map[string]any{"paths": paths}
	} else {
		doc = h.document(h.groups[strings.TrimPrefix(r.URL.Path, root+"/")])
	}
	b, err := json.Marshal(doc)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	tag := fmt.Sprintf("%q", fmt.Sprintf("%X", sha512.Sum512(b)))
	w.Header().Set("ETag", tag)
	w.Header().Set("Cache-Control", "no-cache, private")
	if r.Header.Get("If-None-Match") == tag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(b) // a client that went has nothing to be told
}

type object = map[string]any

func (h *Handler) document(rows []row) object {
	paths, schemas := object{}, schemas{}
	for _, r := range rows {
		k := r.ver.Kind
		if k == "" {
			k = r.def.Kind
		}
		gvk := object{"group": r.ver.GV.Group, "version": r.ver.GV.Version, "kind": k}
		model := schemas.kind(r.ver.New(), gvk)
		base := "/" + below(r.ver.GV)
		if r.def.Namespaced {
			base += "/namespaces/{namespace}"
		}
		base += "/" + r.def.Resource
		op := func(path, method, verb string, params ...string) {
			if r.def.Verbs != nil && !slices.Contains(r.def.Verbs, verb) {
				return
			}
			item, _ := paths[path].(object)
			if item == nil {
				item = object{}
				paths[path] = item
			}
			item[method] = operation(path, verb, gvk, model, params)
		}
		op(base, "get", "list", "labelSelector", "fieldSelector", "limit", "continue", "resourceVersion", "resourceVersionMatch", "watch")
		op(base, "post", "create", "dryRun", "fieldManager", "fieldValidation")
		op(base+"/{name}", "get", "get", "resourceVersion")
		op(base+"/{name}", "put", "update", "dryRun", "fieldManager", "fieldValidation")
		op(base+"/{name}", "patch", "patch", "dryRun", "fieldManager", "fieldValidation", "force")
		op(base+"/{name}", "delete", "delete", "dryRun", "gracePeriodSeconds", "propagationPolicy")
	}
	return object{
		"openapi": "3.0.0", "info": object{"title": "Kubernetes", "version": h.release},
		"paths": paths, "components": object{"schemas": schemas},
	}
}

// operation is one method of a path.
func operation(path, verb string, gvk, model object, params []string) object {
	var ps []object
	for _, in := range []string{"namespace", "name"} {
		if strings.Contains(path, "{"+in+"}") {
			ps = append(ps, object{"name": in, "in": "path", "required": true, "schema": object{"type": "string"}})
		}
	}
	for _, p := range params {
		t := "string"
		switch p {
		case "force", "watch":
			t = "boolean"
		case "limit", "gracePeriodSeconds":
			t = "integer"
		}
		ps = append(ps, object{"name": p, "in": "query", "schema": object{"type": t}})
	}
	action := map[string]string{"create": "post", "update": "put"}[verb]
	if action == "" {
		action = verb
	}
	o := object{
		"parameters": ps, "x-kubernetes-action": action, "x-kubernetes-group-version-kind": gvk,
		"responses": object{"200": object{"description": "OK"}},
	}
	if verb == "create" || verb == "update" {
		o["requestBody"] = object{"required": true, "content": object{"*/*": object{"schema": model}}}
	}
	return o
}
