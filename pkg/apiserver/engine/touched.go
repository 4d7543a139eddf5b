package engine

import (
	"encoding/json"
	"reflect"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

// touched names the fields at the top of an object that a patch reads or writes, by their JSON names. A patch of a status
// needs to see no spec, and most of an object's JSON is never made.
type touched struct {
	fields map[string]bool
	// meta names those of metadata; nil while fields has metadata means all of it.
	meta map[string]bool
}

// touchedBy answers what a patch touches; false for a patch that may touch everything, or is none.
func touchedBy(t types.PatchType, patch []byte) (touched, bool) {
	out := touched{fields: map[string]bool{}}
	if t == types.JSONPatchType {
		return out, out.operations(patch)
	}
	var top map[string]json.RawMessage
	if json.Unmarshal(patch, &top) != nil {
		return out, false
	}
	for name, sub := range top {
		if strings.HasPrefix(name, "$") {
			return out, false // a directive is about its siblings
		}
		out.fields[name] = true
		if name == "metadata" {
			out.meta = members(sub)
		}
	}
	return out, true
}

// members answers the names in a JSON object; nil for what is none, or holds a directive.
func members(object json.RawMessage) map[string]bool {
	var m map[string]json.RawMessage
	if json.Unmarshal(object, &m) != nil || m == nil {
		return nil
	}
	names := map[string]bool{}
	for name := range m {
		if strings.HasPrefix(name, "$") {
			return nil
		}
		names[name] = true
	}
	return names
}

// operations reads what the operations of a JSON patch touch.
func (t *touched) operations(patch []byte) bool {
	var ops []struct{ Path, From *string }
	if json.Unmarshal(patch, &ops) != nil {
		return false
	}
	wholeMeta := false
	t.meta = map[string]bool{}
	unescape := strings.NewReplacer("~1", "/", "~0", "~")
	for _, op := range ops {
		for _, p := range []*string{op.Path, op.From} {
			if p == nil {
				continue
			}
			parts := strings.Split(*p, "/")
			if len(parts) < 2 || parts[0] != "" || parts[1] == "" {
				return false
			}
			name := unescape.Replace(parts[1])
			t.fields[name] = true
			if name != "metadata" {
				continue
			}
			if len(parts) == 2 {
				wholeMeta = true
			} else {
				t.meta[unescape.Replace(parts[2])] = true
			}
		}
	}
	if wholeMeta {
		t.meta = nil
	}
	return true
}

// move sets the fields of to that are touched (or, if rest is set, those that are not) to those of from. It shares their
// memory, and answers false for a type that it does not know how to take apart.
func (t *touched) move(from, to kind.Object, rest bool) bool {
	f, o := reflect.ValueOf(from), reflect.ValueOf(to)
	if f.Kind() != reflect.Pointer || f.Elem().Kind() != reflect.Struct || f.Type() != o.Type() {
		return false
	}
	f, o = f.Elem(), o.Elem()
	for i := range f.NumField() {
		field := f.Type().Field(i)
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		switch {
		case field.Type == reflect.TypeFor[metav1.TypeMeta]():
		case name == "" || !field.IsExported():
			return false
		case field.Type == reflect.TypeFor[metav1.ObjectMeta]() && t.fields[name] && t.meta != nil:
			for n := range field.Type.NumField() {
				sub, _, _ := strings.Cut(field.Type.Field(n).Tag.Get("json"), ",")
				if t.meta[sub] != rest {
					o.Field(i).Field(n).Set(f.Field(i).Field(n))
				}
			}
		case t.fields[name] != rest:
			o.Field(i).Set(f.Field(i))
		}
	}
	return true
}
