package extensions

import (
	"slices"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"k8s.io/apiserver/pkg/cel/environment"
	"k8s.io/kube-openapi/pkg/validation/spec"
)

// unknownFormats are the formats in a definition's schemas that nothing checks, in order.
func unknownFormats(c *crd) []string {
	var out []string
	for _, v := range c.Spec.Versions {
		if v.Schema == nil || v.Schema.OpenAPIV3Schema == nil {
			continue
		}
		props, schema := &apiextensions.JSONSchemaProps{}, &spec.Schema{}
		if apiextensionsv1.Convert_v1_JSONSchemaProps_To_apiextensions_JSONSchemaProps(v.Schema.OpenAPIV3Schema, props, nil) != nil {
			continue // validation says so
		}
		if validation.ConvertJSONSchemaPropsWithPostProcess(props, schema, nil) == nil {
			out = append(out, formats(schema)...)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func formats(s *spec.Schema) (out []string) {
	if s == nil {
		return nil
	}
	out = validation.GetUnrecognizedFormats(s, environment.DefaultCompatibilityVersion())
	for _, p := range s.Properties {
		out = append(out, formats(&p)...)
	}
	if s.Items != nil {
		out = append(out, formats(s.Items.Schema)...)
	}
	if s.AdditionalProperties != nil {
		out = append(out, formats(s.AdditionalProperties.Schema)...)
	}
	return out
}
