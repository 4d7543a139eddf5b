package policystatus

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	"k8s.io/apiserver/pkg/cel/openapi/resolver"
	"k8s.io/kube-openapi/pkg/validation/spec"
)

// published resolves schemas for the library that upstream's own controller uses. The library is the model that ours is
// held to; it is too big for the daemon itself.
type published struct {
	text []byte
	doc  document
}

// ResolveSchema answers a kind's schema with all that it refers to in place.
func (p published) ResolveSchema(kind schema.GroupVersionKind) (*spec.Schema, error) {
	var answer struct {
		Components struct {
			Schemas map[string]*spec.Schema `json:"schemas"`
		} `json:"components"`
	}
	if err := json.Unmarshal(p.text, &answer); err != nil {
		return nil, err
	}
	root := p.doc.root(kind)
	if root == "" {
		return nil, resolver.ErrSchemaNotFound
	}
	return resolver.PopulateRefs(func(ref string) (*spec.Schema, bool) {
		s, ok := answer.Components.Schemas[strings.TrimPrefix(ref, refPrefix)]
		return s, ok
	}, root)
}

// number is what makes the names of types unique: ours count, the library's read the clock.
var number = regexp.MustCompile(`\b(Widget|Gadget|Settings|Anything)\d+`)

// same tells whether the library warns of the same in the same words.
func same(t *testing.T, text []byte, p *admissionregistrationv1.ValidatingAdmissionPolicy, plan *Plan) {
	t.Helper()
	doc, err := parse(text)
	if err != nil {
		t.Fatal(err)
	}
	want := (&validating.TypeChecker{SchemaResolver: published{text, doc}, RestMapper: shopMapper()}).Check(p)
	show := func(list []admissionregistrationv1.ExpressionWarning) string {
		return number.ReplaceAllString((&Plan{Warnings: list}).String(), "${1}N")
	}
	if got, want := show(plan.Warnings), show(want); got != want {
		t.Errorf("%s: the library says otherwise\n--- ours\n%s--- the library\n%s", p.Name, got, want)
	}
}
