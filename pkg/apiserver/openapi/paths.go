package openapi

import (
	"cmp"
	"encoding/json"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

const (
	meta    = "io.k8s.apimachinery.pkg.apis.meta.v1."
	options = "io.k8s.api.core.v1." // where the options of streams are
)

// surveyor walks the rows and writes down what can be done where.
type surveyor struct {
	models models
	items  map[string]*item
	taken  map[string][]param // by options model
}

func newSurveyor(m models) *surveyor {
	return &surveyor{models: m, items: map[string]*item{}, taken: map[string][]param{}}
}

// sorted are the paths in order.
func (s *surveyor) sorted() []*item {
	out := make([]*item, 0, len(s.items))
	for _, it := range s.items {
		out = append(out, it)
	}
	slices.SortFunc(out, func(a, b *item) int { return cmp.Compare(a.path, b.path) })
	return out
}

func (s *surveyor) add(path string, op *operation) {
	it := s.items[path]
	if it == nil {
		it = &item{path: path}
		s.items[path] = it
	}
	it.ops = append(it.ops, op)
}

// options are the query parameters that a published options type stands for, less those named.
func (s *surveyor) options(model string, less ...string) []param {
	all, ok := s.taken[model]
	if !ok {
		var form struct {
			Properties map[string]struct{ Type, Description string }
		}
		_ = json.Unmarshal(s.models[model].v2, &form) // ours; a test reads every document
		for n, p := range form.Properties {
			typ := p.Type
			if typ == "array" {
				typ = "string"
			}
			if typ != "" && n != "kind" && n != "apiVersion" { // an object does not fit a query
				all = append(all, param{name: n, in: "query", typ: typ, doc: p.Description})
			}
		}
		if strings.HasPrefix(model, meta) {
			doc := "If 'true', then the output is pretty printed. Defaults to 'false' unless the user-agent indicates a browser or command-line HTTP tool (curl and wget)."
			all = append(all, param{name: "pretty", in: "query", typ: "string", doc: doc})
		}
		slices.SortFunc(all, func(a, b param) int { return cmp.Compare(a.name, b.name) })
		s.taken[model] = all
	}
	return slices.DeleteFunc(slices.Clone(all), func(p param) bool { return slices.Contains(less, p.name) })
}

// camel is a group's name as operation ids have it: "networking.k8s.io" is Networking.
func camel(group string) string {
	if group == "" {
		return "Core"
	}
	var b strings.Builder
	for _, w := range strings.Split(strings.TrimSuffix(group, ".k8s.io"), ".") {
		b.WriteString(title(w))
	}
	return b.String()
}

func title(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

func tag(gv schema.GroupVersion) string {
	c := camel(gv.Group)
	c = strings.ToLower(c[:1]) + c[1:]
	if gv.Version == "" {
		return c
	}
	return c + "_" + gv.Version
}

// site is one kind in one version.
type site struct {
	*surveyor
	def  *kind.Def
	ver  *kind.Version
	gvk  schema.GroupVersionKind
	root string // "/api/v1"
	base string // of the collection, in a namespace if it has one
	name string // "CoreV1", and "Namespaced" after it if it is

	model, listModel string
	produces, reads  []string // media types of answers that are no watch, and of bodies
}

func (s *surveyor) row(r row) {
	t := site{surveyor: s, def: r.def, ver: r.ver, gvk: r.def.GVK(r.ver), root: "/" + below(r.ver.GV), produces: plainMedia, reads: anyMedia}
	if l := r.def.Loose; l != nil {
		d := l.Describe()
		s.models.add(d)
		t.model, t.listModel, t.produces, t.reads = d.Object, d.List, looseMedia, looseMedia
	} else {
		t.model, t.listModel = modelName(r.ver.New()), modelName(r.ver.NewList())
	}
	t.base, t.name = t.root+"/"+r.def.Resource, ""
	if r.def.Namespaced {
		t.base, t.name = t.root+"/namespaces/{namespace}/"+r.def.Resource, "Namespaced"
	}
	t.collection()
	t.object(t.base+"/{name}", "", t.gvk, t.model, r.def.AllVerbs())
	if r.def.Loose == nil {
		t.watches()
	}
	for i := range r.def.Subs {
		t.sub(&r.def.Subs[i])
	}
}

// id is an operation's: verb, group and version, something in between, the kind, and what follows.
func (t *site) id(verb, between, after string) string {
	return verb + camel(t.ver.GV.Group) + title(t.ver.GV.Version) + between + t.gvk.Kind + after
}

func (t *site) op(method, action, id string, gvk schema.GroupVersionKind) *operation {
	return &operation{
		method: method, action: action, id: id, gvk: &gvk, tag: tag(t.ver.GV), consumes: anyMedia, produces: t.produces, codes: []int{200, 401},
	}
}

func (t *site) collection() {
	one := t.model
	if t.def.Serves("list") {
		list := func(path, id string) {
			op := t.op("get", "list", id, t.gvk)
			op.query, op.answer = t.options(meta+"ListOptions"), t.listModel
			if t.def.Loose == nil {
				op.produces = watchMedia
			}
			t.add(path, op)
		}
		list(t.base, t.id("list", t.name, ""))
		if t.def.Namespaced {
			list(t.root+"/"+t.def.Resource, t.id("list", "", "ForAllNamespaces"))
		}
	}
	if t.def.Serves("create") {
		op := t.op("post", "post", t.id("create", t.name, ""), t.gvk)
		op.body, op.answer, op.query, op.codes, op.consumes = one, one, t.options(meta+"CreateOptions"), []int{200, 201, 202, 401}, t.reads
		t.add(t.base, op)
	}
	if t.def.Serves("deletecollection") {
		op := t.op("delete", "deletecollection", t.id("delete", "Collection"+t.name, ""), t.gvk)
		op.body, op.mayLack, op.answer = meta+"DeleteOptions", true, meta+"Status"
		op.query = append(t.options(meta+"DeleteOptions", "pretty"), t.options(meta+"ListOptions", "watch", "allowWatchBookmarks")...)
		t.add(t.base, op)
	}
}

// object adds what can be done to one object or to an aspect of it.
func (t *site) object(path, after string, gvk schema.GroupVersionKind, model string, verbs []string) {
	for _, v := range verbs {
		var op *operation
		switch v {
		case "get":
			op = t.op("get", "get", t.id("read", t.name, after), gvk)
			op.answer, op.query = model, t.options(meta+"GetOptions", "resourceVersion")
		case "update":
			op = t.op("put", "put", t.id("replace", t.name, after), gvk)
			op.body, op.answer, op.query, op.codes, op.consumes = model, model, t.options(meta+"UpdateOptions"), []int{200, 201, 401}, t.reads
		case "patch":
			op = t.op("patch", "patch", t.id("patch", t.name, after), gvk)
			op.body, op.answer, op.query, op.codes = meta+"Patch", model, t.options(meta+"PatchOptions"), []int{200, 201, 401}
			op.consumes = patchMedia
			if t.def.Loose != nil {
				op.consumes = loosePatchMedia
			}
		case "delete":
			op = t.op("delete", "delete", t.id("delete", t.name, after), gvk)
			op.body, op.mayLack, op.answer, op.codes = meta+"DeleteOptions", true, meta+"Status", []int{200, 202, 401}
			if t.def.ReturnDeleted {
				op.answer = model
			}
			op.query = t.options(meta + "DeleteOptions")
		default:
			continue
		}
		t.add(path, op)
	}
}

// watches are the paths that only watch; they are older than the watch parameter and still served.
func (t *site) watches() {
	if !t.def.Serves("watch") {
		return
	}
	watch := func(path, action, id string) {
		op := t.op("get", action, id, t.gvk)
		op.query, op.answer, op.produces = t.options(meta+"ListOptions"), meta+"WatchEvent", watchMedia
		t.add(path, op)
	}
	root := t.root + "/watch"
	base := root + strings.TrimPrefix(t.base, t.root)
	watch(base, "watchlist", t.id("watch", t.name, "List"))
	watch(base+"/{name}", "watch", t.id("watch", t.name, ""))
	if t.def.Namespaced {
		watch(root+"/"+t.def.Resource, "watchlist", t.id("watch", "", "ListForAllNamespaces"))
	}
}

func (t *site) sub(s *kind.Sub) {
	path, after := t.base+"/{name}/"+s.Name, title(s.Name)
	verbs := []string{"get", "patch", "update"}
	if s.AspectVerbs != nil {
		verbs = s.AspectVerbs
	}
	switch {
	case s.Aspect != nil:
		t.object(path, after, t.gvk, t.model, verbs)
	case s.Scale != nil:
		gvk := schema.GroupVersionKind{Group: "autoscaling", Version: "v1", Kind: "Scale"}
		t.object(path, after, gvk, "io.k8s.api.autoscaling.v1.Scale", verbs)
	case s.Action != nil:
		op := t.op("post", "post", t.id("create", t.name, after), s.Action.GV.WithKind(s.Action.Kind))
		op.body, op.codes, op.query = modelName(s.Action.New()), []int{200, 201, 202, 401}, t.options(meta+"CreateOptions")
		op.answer = op.body
		t.add(path, op)
	case s.Connect != nil && s.Name == "log":
		op := t.op("get", "get", t.id("read", t.name, after), t.gvk)
		op.query, op.produces = t.options(options+s.Connect.OptionsKind), logMedia
		t.add(path, op)
	case s.Connect != nil:
		t.connect(path, after, s.Connect)
		if s.Connect.Path {
			t.connect(path+"/{path}", after+"WithPath", s.Connect)
		}
	}
}

func (t *site) connect(path, after string, c *kind.Connect) {
	for _, m := range c.Methods {
		m = strings.ToLower(m)
		op := t.op(m, "connect", t.id("connect", title(m)+t.name, after), t.ver.GV.WithKind(c.OptionsKind))
		op.produces = anyMedia
		op.query = t.options(options + c.OptionsKind)
		t.add(path, op)
	}
}
