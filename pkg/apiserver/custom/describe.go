package custom

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	openapiv2 "k8s.io/apiextensions-apiserver/pkg/controller/openapi/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/kube-openapi/pkg/validation/spec"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

// Where models refer to each other, in either version, and what they say of themselves.
const (
	definitionsV2 = "#/definitions/"
	definitionsV3 = "#/components/schemas/"
	metaModels    = "io.k8s.apimachinery.pkg.apis.meta.v1."

	extKind       = "x-kubernetes-group-version-kind"
	extSelectable = "x-kubernetes-selectable-fields"
	extEmbedded   = "x-kubernetes-embedded-resource"
	extPreserve   = "x-kubernetes-preserve-unknown-fields"
)

// modelName is a kind's name among the models: com.example.stable.v1.CronTab.
func (v *version) modelName(kind string) string {
	parts := strings.Split(v.gvk.Group, ".")
	slices.Reverse(parts)
	return fmt.Sprintf("%s.%s.%s", strings.Join(parts, "."), v.gvk.Version, kind)
}

// describe answers the version's models for OpenAPI.
func (v *version) describe() kind.Description {
	d := kind.Description{
		Object: v.modelName(v.gvk.Kind), List: v.modelName(v.listKind()),
		V2: map[string]json.RawMessage{}, V3: map[string]json.RawMessage{},
	}
	for to, v2 := range map[*map[string]json.RawMessage]bool{&d.V2: true, &d.V3: false} {
		for name, s := range map[string]*spec.Schema{d.Object: v.model(v2), d.List: v.listModel(v2)} {
			if text, err := json.Marshal(s); err == nil {
				(*to)[name] = text
			}
		}
	}
	return d
}

func ref(name string, v2 bool, doc string) spec.Schema {
	root := definitionsV3
	if v2 {
		root = definitionsV2
	}
	return *spec.RefSchema(root + name).WithDescription(doc)
}

// model is the object's.
func (v *version) model(v2 bool) *spec.Schema {
	s := &spec.Schema{SchemaProps: spec.SchemaProps{Type: []string{"object"}}}
	loose := v.schema != nil && (v.schema.XPreserveUnknownFields || v.crd.Spec.PreserveUnknownFields)
	if v.schema != nil && !(v2 && loose) { // kubectl takes the absence of properties in v2 for "anything goes"
		known := v.schema
		if v2 {
			known = openapiv2.ToStructuralOpenAPIV2(known)
		}
		s = known.ToKubeOpenAPI()
		s.SetProperty("metadata", ref(metaModels+"ObjectMeta", v2, metav1.PartialObjectMetadata{}.SwaggerDoc()["metadata"]))
		typeMeta(s, "APIVersion defines the versioned schema of this representation of an object. Servers should convert recognized schemas to the latest internal value, and may reject unrecognized values. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources",
			"Kind is a string value representing the REST resource this object represents. Servers may infer this from the endpoint the client submits requests to. Cannot be updated. In CamelCase. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds")
		embed(s, v2)
	}
	v.extend(s, v.gvk.Kind)
	return s
}

// extend says which kind the model is of and by what it may be selected.
func (v *version) extend(s *spec.Schema, kind string) {
	s.AddExtension(extKind, []any{map[string]any{"group": v.gvk.Group, "version": v.gvk.Version, "kind": kind}})
	var fields []any
	for _, f := range v.SelectableFields {
		fields = append(fields, map[string]any{"fieldPath": strings.TrimPrefix(f.JSONPath, ".")})
	}
	if fields != nil {
		s.AddExtension(extSelectable, fields)
	}
}

func typeMeta(s *spec.Schema, apiVersion, kind string) {
	s.SetProperty("apiVersion", *spec.StringProperty().WithDescription(apiVersion))
	s.SetProperty("kind", *spec.StringProperty().WithDescription(kind))
}

// embed describes the objects within the object.
func embed(s *spec.Schema, v2 bool) {
	if s == nil {
		return
	}
	for k := range s.Properties {
		p := s.Properties[k]
		embed(&p, v2)
		s.Properties[k] = p
	}
	if s.Items != nil {
		embed(s.Items.Schema, v2)
	}
	if s.AdditionalProperties != nil {
		embed(s.AdditionalProperties.Schema, v2)
	}
	if loose, _ := s.Extensions.GetBool(extPreserve); loose && v2 {
		return
	}
	if is, _ := s.Extensions.GetBool(extEmbedded); !is {
		return
	}
	typeMeta(s, "apiVersion defines the versioned schema of this representation of an object. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources",
		"kind is a string value representing the type of this object. In CamelCase. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds")
	s.SetProperty("metadata", ref(metaModels+"ObjectMeta", v2, metav1.PartialObjectMetadata{}.SwaggerDoc()["metadata"]))
	for _, f := range []string{"kind", "apiVersion"} {
		if !slices.Contains(s.Required, f) {
			s.Required = append(s.Required, f)
		}
	}
}

func (v *version) listModel(v2 bool) *spec.Schema {
	item := ref(v.modelName(v.gvk.Kind), v2, "")
	s := new(spec.Schema).Typed("object", "").WithDescription(v.listKind()+" is a list of "+v.gvk.Kind).WithRequired("items").
		SetProperty("items", *spec.ArrayProperty(&item).WithDescription("List of " + v.crd.Spec.Names.Plural + ". More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md")).
		SetProperty("metadata", ref(metaModels+"ListMeta", v2, metav1.PartialObjectMetadataList{}.SwaggerDoc()["metadata"]))
	typeMeta(s, metav1.TypeMeta{}.SwaggerDoc()["apiVersion"], metav1.TypeMeta{}.SwaggerDoc()["kind"])
	v.extend(s, v.listKind())
	return s
}
