package policystatus

import (
	"testing"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"pgregory.net/rapid"
)

// TestRandomExpressions checks expressions that chance put together, sound ones and not, beside the library.
func TestRandomExpressions(t *testing.T) {
	text := shopSchemas(t)
	doc, err := parse(text)
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(r *rapid.T) {
		p := &admissionregistrationv1.ValidatingAdmissionPolicy{}
		p.Name, p.Generation = "random", 1
		p.Spec.MatchConstraints = &admissionregistrationv1.MatchResources{ResourceRules: []admissionregistrationv1.NamedRuleWithOperations{{
			RuleWithOperations: admissionregistrationv1.RuleWithOperations{Rule: admissionregistrationv1.Rule{APIGroups: []string{"shop"}, APIVersions: []string{"v1"}, Resources: []string{"widgets", "gadgets"}}},
		}}}
		if rapid.Bool().Draw(r, "params") {
			p.Spec.ParamKind = &admissionregistrationv1.ParamKind{APIVersion: "shop/v1", Kind: "Settings"}
		}
		for _, name := range []string{"a", "b"} {
			p.Spec.Variables = append(p.Spec.Variables, admissionregistrationv1.Variable{Name: name, Expression: expression(r, 2)})
		}
		for range 3 {
			p.Spec.Validations = append(p.Spec.Validations, admissionregistrationv1.Validation{Expression: expression(r, 3)})
		}
		plan, err := decide(snapshot(p, doc))
		if err != nil {
			r.Fatal(err)
		}
		same(t, text, p, plan)
		if t.Failed() {
			r.Fatalf("of %v %v", p.Spec.Variables, p.Spec.Validations)
		}
	})
}

func expression(r *rapid.T, depth int) string {
	if depth == 0 {
		return rapid.SampledFrom([]string{
			"1", "'a'", "true", "null", "object", "oldObject.spec", "object.spec.replicas", "object.spec.parts", "object.spec.parts[0]", "object.spec.labels",
			"object.spec.tree.left", "object.spec.raw", "object.spec.port", "object.spec.since", "object.spec.limits", "object.metadata.labels", "params.most", "params.names",
			"variables.a", "variables.b", "request.userInfo", "request.namespace", "namespaceObject.metadata.labels", "authorizer", "quantity('1')", "ip('10.0.0.1')",
			"object.spec.?nothing", "object.nothing", "object.spec.namespace", "object.spec.pod.metadata", "object.spec.anything", "optional.of(1)", "dyn(1)",
		}).Draw(r, "leaf")
	}
	sub := func() string { return expression(r, depth-1) }
	switch rapid.IntRange(0, 9).Draw(r, "form") {
	case 0:
		return sub() + rapid.SampledFrom([]string{" == ", " < ", " + ", " in ", " && ", " || ", " - "}).Draw(r, "operator") + sub()
	case 1:
		return "(" + sub() + " ? " + sub() + " : " + sub() + ")"
	case 2:
		return "[" + sub() + ", " + sub() + "]"
	case 3:
		return "{'k': " + sub() + "}"
	case 4:
		return sub() + rapid.SampledFrom([]string{".name", ".value", ".size()", ".spec", "[0]", "['a']", ".isSorted()", ".sum()", ".indexOf('a')", ".includes(1)", ".path('/')", ".matches('a')", ".orValue(1)"}).Draw(r, "of")
	case 5:
		return sub() + rapid.SampledFrom([]string{".all(x, ", ".exists(x, ", ".map(x, ", ".filter(x, "}).Draw(r, "macro") + rapid.SampledFrom([]string{"x == 1", "x", "x.name == 'a'", "has(x.weight)", "x != null"}).Draw(r, "body") + ")"
	case 6:
		return rapid.SampledFrom([]string{"size", "string", "int", "quantity", "isIP", "type", "url", "duration", "sets.unique", "sign"}).Draw(r, "function") + "(" + sub() + ")"
	case 7:
		return "!(" + sub() + ")"
	}
	return sub()
}
