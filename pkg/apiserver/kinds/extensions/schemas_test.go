package extensions

import (
	"slices"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
)

// TestDoubts holds which parts of schemas are warned of, wherever they stand, and that what was there before is not.
func TestDoubts(t *testing.T) {
	type props = apiextensionsv1.JSONSchemaProps
	set := func(of string) props {
		kind := "set"
		return props{Type: "array", XListType: &kind, Items: &apiextensionsv1.JSONSchemaPropsOrArray{Schema: &props{Type: of}}}
	}
	with := func(p map[string]props) *crd {
		c := &crd{}
		for _, v := range []string{"v1", "v2"} {
			c.Spec.Versions = append(c.Spec.Versions, apiextensionsv1.CustomResourceDefinitionVersion{
				Name: v, Schema: &apiextensionsv1.CustomResourceValidation{OpenAPIV3Schema: &props{Type: "object", Properties: p}},
			})
		}
		return c
	}
	const objects = `x-kubernetes-list-type: set for items of type "object" is not supported by server-side apply or CEL validation rules`
	all := map[string]props{
		"good":    {Type: "string", Format: "cidr"},
		"strings": set("string"),
		"bad":     {Type: "string", Format: "zz"},
		"nested":  {Type: "string", AnyOf: []props{{Format: "ipv4"}, {Format: "aa"}}},
		"array":   {Type: "array", Format: "cidr", Items: &apiextensionsv1.JSONSchemaPropsOrArray{Schema: &props{Type: "string"}}},
		"objects": set("object"),
	}
	want := []string{`unrecognized format "aa"`, `unrecognized format "cidr"`, `unrecognized format "zz"`, objects}
	if got := warnDefinition(nil, with(all), nil); !slices.Equal(got, want) {
		t.Errorf("new: %q, not %q", got, want)
	}
	old := with(map[string]props{"bad": all["bad"], "lists": set("array")})
	want = []string{`unrecognized format "aa"`, `unrecognized format "cidr"`, objects}
	if got := warnDefinition(nil, with(all), old); !slices.Equal(got, want) {
		t.Errorf("changed: %q, not %q", got, want)
	}
}
