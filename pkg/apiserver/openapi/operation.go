package openapi

import (
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"strconv"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

type object = map[string]any

// What is sent and answered.
var (
	anyMedia   = []string{"*/*"}
	plainMedia = []string{"application/json", "application/yaml", "application/vnd.kubernetes.protobuf"}
	watchMedia = append(plainMedia[:3:3], "application/json;stream=watch", "application/vnd.kubernetes.protobuf;stream=watch")
	logMedia   = append([]string{"text/plain"}, plainMedia...)
	// Kinds without a Go type have no protobuf form and no strategic merge.
	looseMedia      = []string{"application/json", "application/yaml"}
	loosePatchMedia = []string{"application/json-patch+json", "application/merge-patch+json", "application/apply-patch+yaml"}

	patchMedia = []string{
		"application/json-patch+json", "application/merge-patch+json", "application/strategic-merge-patch+json", "application/apply-patch+yaml",
	}
)

// operation is one method of a path, before it is put in the words of either version.
type operation struct {
	method             string // lower case
	id, tag, action    string
	gvk                *schema.GroupVersionKind
	consumes, produces []string
	body               string // its model; "" is none
	mayLack            bool   // the body
	query              []param
	answer             string // its model; "" is text
	codes              []int
}

// param is a query or path parameter.
type param struct {
	name, in, typ, doc string
}

// key is the name under which v2 keeps a parameter that many operations share, "" for those that stand in place.
// Clients look for dryRun and fieldValidation in the operations themselves.
func (p param) key() string {
	if p.in != "query" || p.name == "dryRun" || p.name == "fieldValidation" {
		return ""
	}
	sum := sha256.Sum256([]byte(p.typ + p.doc))
	return p.name + "-" + base64.RawURLEncoding.EncodeToString(sum[:6])
}

func (p param) v2() object {
	if k := p.key(); k != "" {
		return object{"$ref": "#/parameters/" + k}
	}
	return p.whole()
}

// whole is v2's form without a reference.
func (p param) whole() object {
	o := object{"name": p.name, "in": p.in, "type": p.typ, "uniqueItems": true}
	p.common(o)
	return o
}

func (p param) v3() object {
	o := object{"name": p.name, "in": p.in, "schema": object{"type": p.typ, "uniqueItems": true}}
	p.common(o)
	return o
}

func (p param) common(o object) {
	if p.doc != "" {
		o["description"] = p.doc
	}
	if p.in == "path" {
		o["required"] = true
	}
}

// common is the part that both versions tell alike.
func (op *operation) common() object {
	o := object{"operationId": op.id, "tags": []string{op.tag}}
	if op.action != "" {
		o["x-kubernetes-action"] = op.action
	}
	if op.gvk != nil {
		o["x-kubernetes-group-version-kind"] = object{"group": op.gvk.Group, "version": op.gvk.Version, "kind": op.gvk.Kind}
	}
	return o
}

func (op *operation) v2(query []param) object {
	o := op.common()
	o["schemes"] = []string{"https"}
	if op.consumes != nil {
		o["consumes"] = op.consumes
	}
	o["produces"] = op.produces
	ps := []object{}
	if op.body != "" {
		body := object{"name": "body", "in": "body", "schema": object{"$ref": "#/definitions/" + op.body}}
		if !op.mayLack {
			body["required"] = true
		}
		ps = append(ps, body)
	}
	for _, p := range query {
		ps = append(ps, p.v2())
	}
	if len(ps) > 0 {
		o["parameters"] = ps
	}
	answer := object{"type": "string"}
	if op.answer != "" {
		answer = object{"$ref": "#/definitions/" + op.answer}
	}
	rs := object{}
	for _, c := range op.codes {
		r := object{"description": http.StatusText(c)}
		if c < 300 {
			r["schema"] = answer
		}
		rs[strconv.Itoa(c)] = r
	}
	o["responses"] = rs
	return o
}

func (op *operation) v3(query []param) object {
	o := op.common()
	if op.body != "" {
		content := object{}
		for _, m := range op.consumes {
			content[m] = object{"schema": object{"$ref": "#/components/schemas/" + op.body}}
		}
		o["requestBody"] = object{"content": content}
		if !op.mayLack {
			o["requestBody"].(object)["required"] = true
		}
	}
	ps := []object{}
	for _, p := range query {
		ps = append(ps, p.v3())
	}
	if len(ps) > 0 {
		o["parameters"] = ps
	}
	answer := object{"type": "string"}
	if op.answer != "" {
		answer = object{"$ref": "#/components/schemas/" + op.answer}
	}
	rs := object{}
	for _, c := range op.codes {
		r := object{"description": http.StatusText(c)}
		if c < 300 {
			content := object{}
			for _, m := range op.produces {
				content[m] = object{"schema": answer}
			}
			r["content"] = content
		}
		rs[strconv.Itoa(c)] = r
	}
	o["responses"] = rs
	return o
}
