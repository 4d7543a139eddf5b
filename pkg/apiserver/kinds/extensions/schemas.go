package extensions

import (
	"fmt"
	"slices"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apivalidation "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"k8s.io/apiserver/pkg/cel/environment"
	"k8s.io/kube-openapi/pkg/validation/spec"
)

// doubts are what a definition's schemas ask for that will not be done, in words: formats that nothing checks, and sets of what no
// set can hold. Each is told once.
func doubts(c *crd) (out []string) {
	hub, err := internal(c)
	if err != nil {
		return nil // validation says so
	}
	schemas := []*apiextensions.CustomResourceValidation{hub.Spec.Validation} // where all versions have one schema
	for _, v := range hub.Spec.Versions {
		schemas = append(schemas, v.Schema)
	}
	var formats, sets []string
	for _, s := range schemas {
		if s == nil {
			continue
		}
		apivalidation.SchemaHas(s.OpenAPIV3Schema, func(s *apiextensions.JSONSchemaProps) bool {
			asked := &spec.Schema{SchemaProps: spec.SchemaProps{Format: s.Format, Type: []string{s.Type}}}
			for _, f := range validation.GetUnrecognizedFormats(asked, environment.DefaultCompatibilityVersion()) {
				formats = append(formats, fmt.Sprintf("unrecognized format %q", f))
			}
			if isSet := s.XListType != nil && *s.XListType == "set"; isSet && s.Items != nil && s.Items.Schema != nil {
				if of := s.Items.Schema.Type; of == "object" || of == "array" {
					sets = append(sets, fmt.Sprintf("x-kubernetes-list-type: set for items of type %q is not supported by server-side apply or CEL validation rules", of))
				}
			}
			return false // go on
		})
	}
	for _, l := range [][]string{formats, sets} {
		slices.Sort(l)
		out = append(out, slices.Compact(l)...)
	}
	return out
}
