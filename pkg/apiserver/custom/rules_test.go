package custom

import (
	"context"
	"encoding/json"
	"runtime"
	"strings"
	"testing"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/pkg/apiserver/kinds/extensions"
)

// schemaOf is a definition with one version, whose schema is given.
func schemaOf(schema string) (*apiextensionsv1.CustomResourceDefinition, error) {
	crd := &apiextensionsv1.CustomResourceDefinition{}
	err := json.Unmarshal([]byte(`{"metadata":{"name":"as.x.io","generation":1},"spec":{"group":"x.io","scope":"Namespaced","names":{"plural":"as","singular":"a","kind":"A","listKind":"AList"},
		"versions":[{"name":"v1","served":true,"storage":true,"schema":{"openAPIV3Schema":`+schema+`}}]}}`), crd)
	return crd, err
}

// soon fails if f takes long, or makes more garbage than what it read may cost.
func soon(t *testing.T, what string, f func()) {
	t.Helper()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	begun := time.Now()
	f()
	took := time.Since(begun)
	runtime.ReadMemStats(&after)
	if took > 10*time.Second {
		t.Errorf("%s took %v", what, took)
	}
	if made := after.TotalAlloc - before.TotalAlloc; made > 2<<30 {
		t.Errorf("%s made %d bytes", what, made)
	}
}

// judgeWhole puts a definition through all that one goes through when it is written, and an object of it through what an
// object goes through: refusals have a place and a reason, and what was accepted can be served, described and written.
func judgeWhole(t *testing.T, crd *apiextensionsv1.CustomResourceDefinition, object string) {
	t.Helper()
	row := extensions.CustomResourceDefinition()
	row.Versions[0].Default(crd)
	op := &kind.Op{Ctx: context.Background(), Verb: "create", Def: row, Now: time.Now()}
	row.Prepare(op, crd, nil)
	errs := row.Check(op, crd, nil)
	explained(t, errs)
	_ = row.Warn(op, crd, nil)
	judge(crd, nil)
	d, err := newDefinition(crd, nil)
	if len(errs) > 0 {
		return // one that an older server accepted is served as well as it can be
	}
	if err != nil {
		t.Fatalf("it was accepted and cannot be served: %v", err)
	}
	again, err := json.Marshal(crd)
	if err == nil {
		err = json.Unmarshal(again, &apiextensionsv1.CustomResourceDefinition{})
	}
	if err != nil {
		t.Fatalf("it was accepted and cannot be written: %v", err)
	}
	v := d.version("v1")
	if _, err := v.checks(); err != nil {
		t.Fatalf("it was accepted and cannot be checked: %v", err)
	}
	if _, err := d.manager(v, ""); err != nil {
		t.Fatalf("it was accepted and cannot be applied: %v", err)
	}
	_, _, _ = v.describe(), v.model(true), v.listModel(false)
	o, _, err := v.read([]byte(object), false)
	if err != nil {
		return
	}
	o.SetGroupVersionKind(v.gvk)
	o.Name, o.Namespace, o.Generation = "a", "n", 1
	explained(t, v.check(context.Background(), o, nil, false))
	explained(t, v.check(context.Background(), o, o, false))
	value, err := d.encode(o, v)
	if err != nil {
		t.Fatalf("%s cannot be stored: %v", object, err)
	}
	if _, current, err := d.peek(value); err != nil || !current {
		t.Fatalf("%s, stored as %s, cannot be read: %v", object, value, err)
	}
	_ = d.main.Row(o)
}

// explained fails for a fault that is the server's, or says nothing.
func explained(t *testing.T, errs field.ErrorList) {
	t.Helper()
	for _, e := range errs {
		if e.Type == field.ErrorTypeInternal || strings.TrimSpace(e.Error()) == "" {
			t.Errorf("a fault is %q", e)
		}
	}
}

// FuzzSchema reads anything as a definition's schema, and anything as an object of it.
func FuzzSchema(f *testing.F) {
	for _, s := range [][2]string{
		{`{"type":"object","x-kubernetes-preserve-unknown-fields":true}`, `{"a":[1,{}]}`}, {`{}`, `{}`}, {`null`, `{}`}, {`{"type":"array"}`, `[]`}, {`{"type":"object","properties":null}`, `{"a":1}`},
		{`{"type":"object","properties":{"spec":{"type":"object","required":["a"],"properties":{"a":{"type":"integer","default":1,"maximum":9,"multipleOf":2}}}}}`, `{"spec":{}}`},
		{`{"type":"object","properties":{"s":{"type":"string","pattern":"^(a+)+$","format":"date-time","enum":["a"]}}}`, `{"s":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!"}`},
		{`{"type":"object","properties":{"l":{"type":"array","x-kubernetes-list-type":"map","x-kubernetes-list-map-keys":["k"],"items":{"type":"object","required":["k"],"properties":{"k":{"type":"string"}}}}}}`, `{"l":[{"k":"a"},{"k":"a"}]}`},
		{`{"type":"object","properties":{"m":{"type":"object","additionalProperties":{"x-kubernetes-int-or-string":true}},"n":{"type":"number","nullable":true,"default":null}}}`, `{"m":{"a":"b","c":1}}`},
		{`{"type":"object","properties":{"e":{"type":"object","x-kubernetes-embedded-resource":true,"x-kubernetes-preserve-unknown-fields":true}},"oneOf":[{"required":["e"]},{"not":{"required":["f"]}}]}`, `{"e":{"apiVersion":"v1","kind":"P","metadata":{}}}`},
		{`{"type":"object","properties":{"a":{"type":"object","default":{"b":{"c":1}},"properties":{"b":{"type":"object","properties":{"c":{"type":"integer"}}}}}},"$ref":"#"}`, `{"a":null}`},
		{`{"type":"object","properties":{"a":{"type":"array","items":[{"type":"string"}]}}}`, `{"a":["b"]}`}, {`{"type":"object","properties":{"a":{"type":"string","default":"\ud800","pattern":"("}}}`, `{}`}, {`{"type":"object","properties":{"a":{"enum":[1,{"b":[]}]}},"additionalProperties":false}`, `{"a":1}`},
		{`{"type":"object","properties":{"a":{"type":"integer","format":"int32","minimum":1e400}}}`, `{"a":1}`}, {`{"type":"object","properties":{"a":{"type":"number","multipleOf":0}}}`, `{"a":1}`}, {`{"type":"object","properties":{"a":{"type":"number","multipleOf":1e-320}}}`, `{"a":1e300}`}, {`{"type":"object","properties":{"a":{"type":"string","minLength":9223372036854775807}}}`, `{"a":""}`},
		{`{"type":"object","properties":{"l":{"type":"array","x-kubernetes-list-type":"map","x-kubernetes-list-map-keys":["k","k"],"items":{"type":"object","properties":{"k":{"type":"string","default":"x"}}}}}}`, `{"l":[{},{}]}`}, {`{"type":"object","properties":{"l":{"type":"array","x-kubernetes-list-type":"set","items":{"type":"object","x-kubernetes-map-type":"atomic"}}}}`, `{"l":[{},{}]}`},
		{`{"type":"object","properties":{"":{"type":"string"},"a.b/c~":{"type":"string"},"$ref":{"type":"string"}}}`, `{"":"a","$ref":"b"}`}, {`{"type":"object","properties":{"a":{"type":"object","x-kubernetes-validations":[{"rule":"self.x==1","fieldPath":".x[","reason":"z"}],"properties":{"x":{"type":"integer"}}}}}`, `{"a":{"x":2}}`},
		{`{"type":"object","properties":{"metadata":{"type":"object","properties":{"name":{"type":"string","maxLength":3}}}}}`, `{"metadata":{"name":"abcd"}}`},
	} {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, schema, object string) {
		if !json.Valid([]byte(schema)) {
			return // the body as a whole is FuzzDecode's
		}
		crd, err := schemaOf(schema)
		if err != nil {
			return
		}
		soon(t, schema, func() { judgeWhole(t, crd, object) })
	})
}

// FuzzRule reads anything as a rule of a schema and as the expression of its message, and asks it about an object.
func FuzzRule(f *testing.F) {
	const object = `{"spec":{"n":1,"s":"a","l":["a","b"],"m":{"a":1},"t":"2026-01-01T00:00:00Z","i":"1"}}`
	for _, s := range [][2]string{
		{"self.n != 13", ""}, {"self.n > oldSelf.n", "'n is ' + string(self.n)"}, {"self.l.all(x, x.startsWith('a'))", "self.s"}, {"has(self.m) && self.m.all(k, self.m[k] < 9)", "1"}, {"self.l.all(x, self.l.all(y, self.l.all(z, x + y != z)))", ""},
		{"self.s.matches('^(a+)+$')", "self.l[9]"}, {"self.t < timestamp('2027-01-01T00:00:00Z')", ""}, {"type(self.i) == int ? self.i > 0 : self.i == '1'", ""}, {"1/0 == self.n", ""}, {"self", ""}, {"(((", "((("}, {"", ""},
		{"quantity(self.s).isInteger() || isURL(self.s) || ip(self.s).isLoopback()", "'\\n'"}, {"self.l.map(x, self.l.map(y, x + y)).size() > 0", "self.l.join(',')"}, {"[1,2,3].exists_one(x, x == self.n) || optional.none().hasValue()", ""}, {"self.?zz.orValue(1) == 1", ""},
		{"cel.bind(a, self.s + self.s, cel.bind(b, a + a, b + b)).size() < 100", ""}, {"self.s.replace('', 'aaaaaaaa').size() > 0 || format.dns1123Label().validate(self.s).hasValue()", ""},
	} {
		f.Add(s[0], s[1], object)
	}
	f.Fuzz(func(t *testing.T, rule, message, object string) {
		said, err := json.Marshal(apiextensionsv1.ValidationRule{Rule: rule, MessageExpression: message})
		if err != nil {
			t.Fatal(err)
		}
		crd, err := schemaOf(`{"type":"object","properties":{"spec":{"type":"object","x-kubernetes-validations":[` + string(said) + `],"properties":{"n":{"type":"integer"},"s":{"type":"string","maxLength":40},"i":{"x-kubernetes-int-or-string":true},
			"t":{"type":"string","format":"date-time"},"l":{"type":"array","maxItems":9,"items":{"type":"string","maxLength":9}},"m":{"type":"object","maxProperties":9,"additionalProperties":{"type":"integer"}}}}}}`)
		if err != nil {
			t.Fatal(err)
		}
		soon(t, rule, func() { judgeWhole(t, crd, object) })
	})
}
