package custom

import (
	"context"
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

// crdText is a definition that uses about everything a schema can say.
const crdText = `{"metadata":{"name":"as.x.io","generation":1},"spec":{"group":"x.io","scope":"Namespaced","names":{"plural":"as","singular":"a","kind":"A","listKind":"AList"},
	"versions":[{"name":"v1","served":true,"storage":true,"subresources":{"status":{},"scale":{"specReplicasPath":".spec.n","statusReplicasPath":".status.n"}},"selectableFields":[{"jsonPath":".spec.s"}],
	"additionalPrinterColumns":[{"name":"N","type":"integer","jsonPath":".spec.n"},{"name":"When","type":"date","jsonPath":".spec.t"},{"name":"L","type":"string","jsonPath":".spec.l"}],
	"schema":{"openAPIV3Schema":{"type":"object","properties":{"spec":{"type":"object","required":["n"],"x-kubernetes-validations":[{"rule":"self.n != 13"}],"properties":{
		"n":{"type":"integer","minimum":0},"s":{"type":"string","default":"d","maxLength":5},"t":{"type":"string","format":"date-time"},"i":{"x-kubernetes-int-or-string":true},"f":{"type":"number"},
		"l":{"type":"array","x-kubernetes-list-type":"set","items":{"type":"string"}},"m":{"type":"object","additionalProperties":{"type":"integer"}},
		"e":{"type":"object","x-kubernetes-embedded-resource":true,"x-kubernetes-preserve-unknown-fields":true},"nul":{"type":"string","nullable":true},
		"any":{"type":"object","x-kubernetes-preserve-unknown-fields":true,"properties":{"k":{"type":"boolean","default":true}}}}},
		"status":{"type":"object","properties":{"n":{"type":"integer"}}}}}}},
	{"name":"v2","served":true,"storage":false,"schema":{"openAPIV3Schema":{"type":"object","x-kubernetes-preserve-unknown-fields":true}}}]},
	"status":{"acceptedNames":{"plural":"as","singular":"a","kind":"A","listKind":"AList"}}}`

func newTest(t testing.TB) *definition {
	t.Helper()
	crd := &apiextensionsv1.CustomResourceDefinition{}
	if err := json.Unmarshal([]byte(crdText), crd); err != nil {
		t.Fatal(err)
	}
	d, err := newDefinition(crd, nil)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// TestShape reads objects and shows what the schema made of them.
func TestShape(t *testing.T) {
	v := newTest(t).version("v1")
	for _, c := range []struct{ spec, want, problems string }{
		{`{"n":1}`, `{"n":1,"s":"d"}`, ``},
		{`{"n":1,"zz":2,"s":null,"nul":null}`, `{"n":1,"nul":null,"s":"d"}`, `unknown field "spec.zz"`},
		{`{"n":1,"n":2,"any":{"x":1}}`, `{"any":{"k":true,"x":1},"n":2,"s":"d"}`, `duplicate field "spec.n"`},
		{`{"n":1,"e":{"apiVersion":"v1","kind":"P","metadata":{"name":"a","bad":1},"rest":[1]}}`,
			`{"e":{"apiVersion":"v1","kind":"P","metadata":{"name":"a"},"rest":[1]},"n":1,"s":"d"}`, `unknown field "spec.e.metadata.bad"`},
		{`{"n":9007199254740993,"f":1.0}`, `{"f":1,"n":9007199254740993,"s":"d"}`, ``},
	} {
		o, problems, err := v.read([]byte(`{"apiVersion":"x.io/v1","kind":"A","metadata":{"name":"a"},"spec":`+c.spec+`}`), true)
		if err != nil {
			t.Errorf("%s: %v", c.spec, err)
			continue
		}
		var texts []string
		for _, p := range problems {
			texts = append(texts, p.Error())
		}
		got, _ := json.Marshal(o.Rest["spec"])
		if string(got) != c.want || strings.Join(texts, "; ") != c.problems {
			t.Errorf("%s became %s, %q; want %s, %q", c.spec, got, texts, c.want, c.problems)
		}
	}
}

// FuzzRead reads anything: it is refused or becomes an object that is the same after it was stored, read again, converted
// there and back, and copied; asking whether it is valid, printing and scaling it never panics.
func FuzzRead(f *testing.F) {
	for _, s := range []string{
		`{}`, `null`, `[]`, `1`, `{"apiVersion":"x.io/v1","kind":"A"}`, `{"kind":"A","metadata":null,"spec":null}`, `{"metadata":{"labels":{"a":1}}}`, `{"metadata":{"managedFields":[{}]},"spec":{"n":1e400}}`,
		`{"apiVersion":"x.io/v1","kind":"A","metadata":{"name":"a","generation":3,"creationTimestamp":"2026-01-01T00:00:00Z"},"spec":{"n":1,"l":["a","a"],"m":{"a":1},"e":{"metadata":[]},"i":1.5,"t":"x","any":{"a":[{}]}},"status":{"n":"x"}}`,
		`{"spec":{"n":-1,"f":-0.0,"s":"\ud800"}}`,
	} {
		f.Add([]byte(s))
	}
	d := newTest(f)
	v, other := d.version("v1"), d.version("v2")
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, strict := range []bool{true, false} {
			o, _, err := v.read(body, strict)
			if err != nil {
				continue
			}
			o.SetGroupVersionKind(v.gvk)
			o.Generation = 1
			_ = v.check(context.Background(), o, nil, false)
			_ = v.check(context.Background(), o, o, true)
			_ = d.main.Row(o)
			_ = d.main.Fields(o)
			value, err := d.encode(o, v)
			if err != nil {
				t.Fatalf("%s cannot be stored: %v", body, err)
			}
			again, current, err := d.peek(value)
			if err != nil || !current {
				t.Fatalf("%s, stored as %s, cannot be read: %v", body, value, err)
			}
			// The one number that JSON writes in a way that is read as another: a negative zero.
			if stored, _ := d.encode(again.(*Object), v); string(stored) != strings.ReplaceAll(string(value), ":-0", ":0") && !strings.Contains(string(value), "-0") {
				t.Fatalf("%s was stored as %s and then as %s", body, value, stored)
			}
			there, err := d.adopt([]kind.Object{again}, other)
			if err != nil || there[0].(*Object).APIVersion != "x.io/v2" {
				t.Fatalf("%s cannot be converted: %v", value, err)
			}
			c := o.DeepCopyObject()
			if !reflect.DeepEqual(c, runtime.Object(o)) {
				t.Fatalf("a copy of %s differs", value)
			}
			v.writeScale(c.(*Object), 5)
			_, _, _ = v.readScale(c.(*Object))
		}
	})
}
