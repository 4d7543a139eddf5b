package openapi

import (
	"slices"
	"strings"
)

// item is a path and what can be done there.
type item struct {
	path string
	ops  []*operation
}

// inPath tells what stands for what in a path.
var inPath = map[string]string{
	"name":      "name of the object",
	"namespace": "object name and auth scope, such as for teams and projects",
	"path":      "path to the resource",
}

// render is the path's object. Parameters that all its operations take are told once.
func (it *item) render(v3 bool) object {
	var all []param
	for _, part := range strings.Split(it.path, "/") {
		if n := strings.Trim(part, "{}"); n != part {
			all = append(all, param{name: n, in: "path", typ: "string", doc: inPath[n]})
		}
	}
	for _, p := range it.ops[0].query {
		if it.shared(p) {
			all = append(all, p)
		}
	}
	out := object{}
	for _, op := range it.ops {
		own := slices.DeleteFunc(slices.Clone(op.query), it.shared)
		if v3 {
			out[op.method] = op.v3(own)
		} else {
			out[op.method] = op.v2(own)
		}
	}
	ps := []object{}
	for _, p := range all {
		if v3 {
			ps = append(ps, p.v3())
		} else {
			ps = append(ps, p.v2())
		}
	}
	if len(ps) > 0 {
		out["parameters"] = ps
	}
	return out
}

func (it *item) shared(p param) bool {
	return !slices.ContainsFunc(it.ops, func(op *operation) bool { return !slices.Contains(op.query, p) })
}

// models are the models that the path's operations name.
func (it *item) models(into map[string]bool) {
	for _, op := range it.ops {
		into[op.body], into[op.answer] = true, true
	}
}
