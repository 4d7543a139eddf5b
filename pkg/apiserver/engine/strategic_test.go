package engine

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"

	"github.com/sextant-k8s/sextant/pkg/apiserver/codec"
	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/pkg/apiserver/kinds"
	"github.com/sextant-k8s/sextant/pkg/apiserver/request"
)

// spot is a field with a patch strategy, and the fields on the way to it.
type spot []reflect.StructField

func (s spot) String() string {
	var names []string
	for _, f := range s {
		names = append(names, jsonName(f))
	}
	return strings.Join(names, ".")
}

func jsonName(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	return name
}

func plain(t reflect.Type) reflect.Type {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	return t
}

// merged tells whether a patch of a field goes into it: a list without a merge key is replaced.
func merged(f reflect.StructField) bool {
	return f.Type.Kind() != reflect.Slice || f.Tag.Get("patchMergeKey") != ""
}

// spots finds all fields with a patch strategy that a patch can reach, but not the same of one type twice on one way.
func spots(t reflect.Type, way spot, passed []reflect.Type) (out []spot) {
	if t.Kind() != reflect.Struct || slices.Contains(passed, t) {
		return nil
	}
	passed = append(slices.Clip(passed), t)
	for i := range t.NumField() {
		f := t.Field(i)
		switch {
		case jsonName(f) == "-", !f.IsExported():
		case jsonName(f) == "" && f.Anonymous:
			for _, s := range spots(f.Type, nil, passed) {
				s[0].Index = append(slices.Clone(f.Index), s[0].Index...)
				out = append(out, slices.Concat(way, s))
			}
		default:
			here := append(slices.Clip(way), f)
			if f.Tag.Get("patchStrategy") != "" {
				out = append(out, here)
			}
			if merged(f) {
				out = append(out, spots(plain(f.Type), here, passed)...)
			}
		}
	}
	return out
}

// marked is another field of a merged struct that a test can write a word into.
func marked(t reflect.Type, key string) string {
	for i := range t.NumField() {
		if f := t.Field(i); f.Type.Kind() == reflect.String && jsonName(f) != "" && jsonName(f) != key {
			return jsonName(f)
		}
	}
	return ""
}

// keyOf is the nth value of a merge key, or of a list of primitives.
func keyOf(t reflect.Type, key string, n int) any {
	t = plain(t)
	if t.Kind() == reflect.Struct {
		i := slices.IndexFunc(reflect.VisibleFields(t), func(f reflect.StructField) bool { return jsonName(f) == key })
		t = plain(reflect.VisibleFields(t)[i].Type)
	}
	if t.Kind() == reflect.String {
		return string(rune('a' + n))
	}
	return float64(n + 1)
}

// element is the nth of a list, with more fields.
func element(f reflect.StructField, n int, more map[string]any) any {
	key := f.Tag.Get("patchMergeKey")
	if key == "" {
		return keyOf(f.Type, key, n)
	}
	out := map[string]any{key: keyOf(f.Type, key, n)}
	for k, v := range more {
		out[k] = v
	}
	return out
}

// around puts fields where the spot's struct is: in the first element of every list on the way.
func (s spot) around(fields map[string]any) map[string]any {
	for _, f := range slices.Backward(s[:len(s)-1]) {
		if f.Type.Kind() == reflect.Slice {
			fields = map[string]any{jsonName(f): []any{element(f, 0, fields)}}
		} else {
			fields = map[string]any{jsonName(f): fields}
		}
	}
	return fields
}

// at answers what is at the spot, as around has put it there.
func (s spot) at(object map[string]any) any {
	var v any = object
	for _, f := range s {
		if list, ok := v.([]any); ok && len(list) > 0 {
			v = list[0]
		}
		m, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = m[jsonName(f)]
	}
	return v
}

// strategic is a patch and what a list's keys are afterwards: in this order, if ordered.
type strategic struct {
	patch   map[string]any
	keys    []int
	ordered bool
}

// listPatches are patches of a list of the elements 0, 1 and 2.
func (s spot) listPatches() map[string]strategic {
	f := s[len(s)-1]
	name, key := jsonName(f), f.Tag.Get("patchMergeKey")
	el := func(n int) any { return element(f, n, nil) }
	out := map[string]strategic{
		"null":         {map[string]any{name: nil}, nil, true},
		"order":        {map[string]any{"$setElementOrder/" + name: []any{el(2), el(0), el(1)}, name: []any{el(1)}}, []int{2, 0, 1}, true},
		"order of new": {map[string]any{"$setElementOrder/" + name: []any{el(2), el(3), el(0), el(1)}, name: []any{el(3)}}, []int{2, 3, 0, 1}, true},
		"wrong order":  {map[string]any{"$setElementOrder/" + name: []any{el(0)}, name: []any{el(3)}}, nil, false},
		"more":         {map[string]any{name: []any{el(1), el(3)}}, []int{0, 1, 2, 3}, false},
	}
	if key == "" {
		out["delete"] = strategic{map[string]any{"$deleteFromPrimitiveList/" + name: []any{el(1)}}, []int{0, 2}, true}
		return out
	}
	directive := func(d string, n int) any { return element(f, n, map[string]any{"$patch": d}) }
	out["delete"] = strategic{map[string]any{name: []any{directive("delete", 1)}}, []int{0, 2}, true}
	out["delete and add"] = strategic{map[string]any{name: []any{el(4), directive("delete", 1), el(3)}}, []int{0, 2, 3, 4}, false}
	out["replace"] = strategic{map[string]any{name: []any{map[string]any{"$patch": "replace"}, el(3), el(1)}}, []int{3, 1}, true}
	out["no key"] = strategic{map[string]any{name: []any{map[string]any{}}}, nil, false}
	out["no list"] = strategic{map[string]any{name: "x"}, nil, false}
	out["no directive"] = strategic{map[string]any{name: []any{directive("mend", 1)}}, nil, false}
	if word := marked(plain(f.Type), key); word != "" {
		out["merge"] = strategic{map[string]any{name: []any{element(f, 1, map[string]any{word: "new"})}}, []int{0, 1, 2}, true}
		out["retain"] = strategic{map[string]any{name: []any{element(f, 1, map[string]any{word: "new", "$retainKeys": []any{key, word}})}}, []int{0, 1, 2}, true}
	}
	return out
}

// TestStrategicMerge patches every list and struct of every built-in kind that has a patch strategy, with every directive there
// is. What comes of it is what the library of strategic merges makes of the whole object, and for lists also what the directive
// is for.
func TestStrategicMerge(t *testing.T) {
	lists, structs, patched := 0, 0, 0
	for _, def := range kinds.All(kinds.Deps{}) {
		for i := range def.Versions {
			ver := &def.Versions[i]
			if def.Virtual != nil || def.Loose != nil {
				continue
			}
			c := &call{served: newServed(def, ver, nil), info: &request.Info{}, r: &http.Request{URL: &url.URL{}}}
			for _, s := range spots(reflect.TypeOf(ver.New()).Elem(), nil, nil) {
				f := s[len(s)-1]
				name := jsonName(f)
				var all map[string]strategic
				before := map[string]any{}
				switch {
				case f.Type.Kind() == reflect.Slice && strings.Contains(f.Tag.Get("patchStrategy"), "merge"):
					lists++
					all, before[name] = s.listPatches(), []any{element(f, 0, nil), element(f, 1, nil), element(f, 2, nil)}
				case f.Type.Kind() == reflect.Slice: // replace
					lists++
					all = map[string]strategic{"replaced": {patch: map[string]any{name: []any{}}}, "null": {patch: map[string]any{name: nil}}}
				default:
					structs++
					all = map[string]strategic{"null": {patch: map[string]any{name: nil}}, "replace": {patch: map[string]any{name: map[string]any{"$patch": "replace"}}},
						"delete": {patch: map[string]any{name: map[string]any{"$patch": "delete"}}}, "no keys": {patch: map[string]any{name: map[string]any{"$retainKeys": []any{}}}}}
					before[name] = map[string]any{}
					if word := marked(plain(f.Type), ""); word != "" {
						before[name] = map[string]any{word: "old"}
						all["retain"] = strategic{patch: map[string]any{name: map[string]any{word: "new", "$retainKeys": []any{word}}}}
						all["not retained"] = strategic{patch: map[string]any{name: map[string]any{word: "new", "$retainKeys": []any{"other"}}}}
					}
				}
				text, err := json.Marshal(s.around(before))
				if err != nil {
					t.Fatal(err)
				}
				for what, p := range all {
					patch, err := json.Marshal(s.around(p.patch))
					if err != nil {
						t.Fatal(err)
					}
					asked := ver.New()
					if err := json.Unmarshal(text, asked); err != nil {
						t.Fatalf("%s %s: %v in %s", def.Resource, s, err, text)
					}
					got, problem := patchedBy(c, ver, asked, patch)
					want, refused := mergedBy(c, ver, asked, patch)
					told := fmt.Sprintf("%s/%s %s, %s: %s", ver.GV, def.Resource, s, what, patch)
					if (problem != nil) != refused || !reflect.DeepEqual(got, want) {
						t.Errorf("%s makes %v (%v), not %v", told, got, problem, want)
					}
					if refused || p.keys == nil && !p.ordered {
						continue
					}
					patched++
					if keys := s.keys(got); !slices.Equal(arranged(keys, p.ordered), arranged(s.wanted(p.keys), p.ordered)) {
						t.Errorf("%s leaves %v", told, keys)
					}
				}
			}
		}
	}
	if lists < 300 || structs < 2 || patched < 2000 {
		t.Errorf("%d lists and %d structs were found, and %d patches made: that tests too little", lists, structs, patched)
	}
}

// patchedBy is what the engine makes, in the way it would take.
func patchedBy(c *call, ver *kind.Version, asked kind.Object, patch []byte) (map[string]any, error) {
	var obj kind.Object
	part, ok := touchedBy(types.StrategicMergePatchType, patch)
	if ok {
		obj, _, ok = c.patchPart(types.StrategicMergePatchType, &part, asked, patch, codec.Ignore)
	}
	if !ok {
		var err error
		if obj, _, err = c.patchWhole(types.StrategicMergePatchType, asked, patch, codec.Ignore); err != nil {
			return nil, err
		}
	}
	return asMap(obj), nil
}

// mergedBy is what the library makes of the whole object.
func mergedBy(c *call, ver *kind.Version, asked kind.Object, patch []byte) (_ map[string]any, refused bool) {
	before, err := codec.JSONBody(asked)
	if err != nil {
		return nil, true
	}
	after, err := strategicpatch.StrategicMergePatch(codec.WithKind(before, c.gvk()), patch, ver.New())
	if err != nil {
		return nil, true
	}
	obj := ver.New()
	if json.Unmarshal(after, obj) != nil {
		return nil, true
	}
	return asMap(obj), false
}

func asMap(o kind.Object) map[string]any {
	o.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{})
	b, _ := json.Marshal(o)
	var m map[string]any
	_ = json.Unmarshal(b, &m)
	return m
}

// keys are those of the list at the spot.
func (s spot) keys(object map[string]any) (out []string) {
	list, _ := s.at(object).([]any)
	for _, e := range list {
		if m, ok := e.(map[string]any); ok {
			e = m[s[len(s)-1].Tag.Get("patchMergeKey")]
		}
		out = append(out, fmt.Sprint(e))
	}
	return out
}

func (s spot) wanted(keys []int) (out []string) {
	f := s[len(s)-1]
	for _, n := range keys {
		out = append(out, fmt.Sprint(keyOf(f.Type, f.Tag.Get("patchMergeKey"), n)))
	}
	return out
}

func arranged(keys []string, ordered bool) []string {
	if ordered {
		return keys
	}
	return slices.Sorted(slices.Values(keys))
}
