package custom

import (
	"errors"
	"fmt"
	"sync"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	structural "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/objectmeta"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"k8s.io/apimachinery/pkg/runtime/schema"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"sigs.k8s.io/json"
)

// version is one version of a definition, as its schema has it.
type version struct {
	*apiextensionsv1.CustomResourceDefinitionVersion
	crd    *apiextensionsv1.CustomResourceDefinition
	gvk    schema.GroupVersionKind
	schema *structural.Structural // nil if the version has none
	props  *apiextensions.JSONSchemaProps
	// checks compiles on first need: most definitions of a cluster are never written through most of its servers.
	checks func() (*checks, error)
}

// checks is what validates objects of a version.
type checks struct {
	whole, status validation.SchemaValidator
	rules         *cel.Validator // nil if there are no rules
}

// newVersion reads a version's schema.
func newVersion(crd *apiextensionsv1.CustomResourceDefinition, v *apiextensionsv1.CustomResourceDefinitionVersion) (*version, error) {
	out := &version{CustomResourceDefinitionVersion: v, crd: crd, gvk: schema.GroupVersionKind{Group: crd.Spec.Group, Version: v.Name, Kind: crd.Status.AcceptedNames.Kind}}
	if v.Schema != nil && v.Schema.OpenAPIV3Schema != nil {
		out.props = &apiextensions.JSONSchemaProps{}
		if err := apiextensionsv1.Convert_v1_JSONSchemaProps_To_apiextensions_JSONSchemaProps(v.Schema.OpenAPIV3Schema, out.props, nil); err != nil {
			return nil, fmt.Errorf("reading the schema of version %s: %w", v.Name, err)
		}
		var err error
		if out.schema, err = structural.NewStructural(out.props); err != nil {
			return nil, fmt.Errorf("reading the schema of version %s: %w", v.Name, err)
		}
		// What is defaulted must itself be as the schema prunes it.
		if err := defaulting.PruneDefaults(out.schema); err != nil {
			return nil, fmt.Errorf("reading the defaults of version %s: %w", v.Name, err)
		}
	}
	out.checks = sync.OnceValues(out.compile)
	return out, nil
}

func (v *version) compile() (*checks, error) {
	c := &checks{}
	var err error
	if c.whole, _, err = validation.NewSchemaValidator(v.props); err != nil {
		return nil, err
	}
	if v.props != nil {
		if status, ok := v.props.Properties["status"]; ok {
			if c.status, _, err = validation.NewSchemaValidator(&status); err != nil {
				return nil, err
			}
		}
	}
	if v.schema != nil {
		c.rules = cel.NewValidator(v.schema, true, celconfig.PerCallLimit)
	}
	return c, nil
}

// read reads an object that claims to be of this version; problems are what strict tells of.
func (v *version) read(body []byte, strict bool) (*Object, []error, error) {
	var m map[string]any
	var problems []error
	var err error
	if strict {
		problems, err = json.UnmarshalStrict(body, &m)
	} else {
		err = json.UnmarshalCaseSensitivePreserveInts(body, &m)
	}
	if err != nil {
		return nil, nil, err
	}
	if m == nil {
		return nil, nil, errors.New("the body is no object")
	}
	unknown, err := v.shape(m, strict)
	if err != nil {
		return nil, nil, err
	}
	for _, f := range unknown {
		problems = append(problems, fmt.Errorf("unknown field %q", f))
	}
	o, err := fromMap(m)
	return o, problems, err
}

// shape makes m what the schema knows: unknown fields go, metadata is made well formed, defaults are filled in. It answers
// the unknown fields' paths if they are asked for.
func (v *version) shape(m map[string]any, track bool) (unknown []string, err error) {
	// metadata is the server's, not the schema's.
	meta, found, unknown, err := objectmeta.GetObjectMetaWithOptions(m, objectmeta.ObjectMetaOptions{ReturnUnknownFieldPaths: track})
	if err != nil {
		return nil, err
	}
	apiVersion, kind := m["apiVersion"], m["kind"]
	if v.schema != nil {
		if !v.crd.Spec.PreserveUnknownFields {
			unknown = append(unknown, pruning.PruneWithOptions(m, v.schema, true, structural.UnknownFieldPathOptions{TrackUnknownFieldPaths: track})...)
			defaulting.PruneNonNullableNullsWithoutDefaults(m, v.schema)
		}
		bad, paths := objectmeta.CoerceWithOptions(nil, m, v.schema, false, objectmeta.CoerceOptions{ReturnUnknownFieldPaths: track})
		if bad != nil {
			return nil, bad
		}
		unknown = append(unknown, paths...)
		defaulting.Default(m, v.schema)
	}
	m["apiVersion"], m["kind"] = apiVersion, kind
	if found {
		if err := objectmeta.SetObjectMeta(m, meta); err != nil {
			return nil, err
		}
	}
	return unknown, nil
}

// open reads a stored object of this version.
func (v *version) open(m map[string]any) (*Object, error) {
	meta, found, _, err := objectmeta.GetObjectMetaWithOptions(m, objectmeta.ObjectMetaOptions{DropMalformedFields: true})
	if err != nil {
		return nil, err
	}
	delete(m, "metadata")
	apiVersion, kind := m["apiVersion"], m["kind"]
	if v.schema != nil {
		if !v.crd.Spec.PreserveUnknownFields {
			pruning.Prune(m, v.schema, true)
			defaulting.PruneNonNullableNullsWithoutDefaults(m, v.schema)
		}
		if bad := objectmeta.Coerce(nil, m, v.schema, false, true); bad != nil {
			return nil, bad
		}
		defaulting.Default(m, v.schema)
	}
	m["apiVersion"], m["kind"] = apiVersion, kind
	o, err := fromMap(m)
	if err == nil && found {
		o.ObjectMeta = *meta
	}
	if err == nil && o.Generation == 0 {
		o.Generation = 1 // older servers stored none
	}
	return o, err
}

// reshape prunes and defaults an object that was changed by others than its writer (a converter, a webhook).
func (v *version) reshape(o *Object) error {
	if v.schema == nil {
		return nil
	}
	m := o.Rest
	if m == nil {
		m = map[string]any{}
	}
	m["apiVersion"], m["kind"] = o.APIVersion, o.Kind
	n, err := v.open(m)
	if err != nil {
		return err
	}
	o.Rest = n.Rest
	return nil
}
