package custom

import (
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/kube-openapi/pkg/validation/spec"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
	"sigs.k8s.io/structured-merge-diff/v6/typed"
)

// manager makes the keeper of the managedFields of a version, or of a subresource of it.
func (d *definition) manager(v *version, sub string) (*managedfields.FieldManager, error) {
	types, err := d.typed()
	if err != nil {
		return nil, fmt.Errorf("reading the schema for field management: %w", err)
	}
	reset := map[fieldpath.APIVersion]fieldpath.Filter{}
	for _, o := range d.versions {
		if own := o.reset(sub); own != nil {
			reset[fieldpath.APIVersion(o.gvk.GroupVersion().String())] = fieldpath.NewExcludeSetFilter(own)
		}
	}
	return managedfields.NewDefaultCRDFieldManager(types, d, d, d, v.gvk, v.gvk.GroupVersion(), sub, reset)
}

// reset are the fields that a write through sub does not write, whoever asks.
func (v *version) reset(sub string) *fieldpath.Set {
	switch {
	case sub == "status":
		return fieldpath.NewSet(fieldpath.MakePathOrDie("metadata"), fieldpath.MakePathOrDie("spec"))
	case sub == "" && v.Subresources != nil && v.Subresources.Status != nil:
		return fieldpath.NewSet(fieldpath.MakePathOrDie("status"))
	}
	return nil
}

// typeConverter shows custom objects to field management as it likes them, and takes them back.
type typeConverter struct{ of managedfields.TypeConverter }

// newTypes reads the schemas of all versions: fields may be managed through any.
func (d *definition) newTypes() (managedfields.TypeConverter, error) {
	models := objectMetaModels()
	known := true
	for _, v := range d.versions {
		models[v.modelName(v.gvk.Kind)] = v.model(false)
		known = known && v.schema != nil
	}
	if !known {
		return typeConverter{managedfields.NewDeducedTypeConverter()}, nil
	}
	c, err := managedfields.NewTypeConverter(models, d.crd.Spec.PreserveUnknownFields)
	return typeConverter{c}, err
}

// ObjectToTyped reads an object by its schema.
func (t typeConverter) ObjectToTyped(obj runtime.Object, opts ...typed.ValidationOptions) (*typed.TypedValue, error) {
	if o, ok := obj.(*Object); ok {
		m, err := o.Map()
		if err != nil {
			return nil, err
		}
		obj = &unstructured.Unstructured{Object: m}
	}
	return t.of.ObjectToTyped(obj, opts...)
}

// TypedToObject makes a custom object.
func (t typeConverter) TypedToObject(v *typed.TypedValue) (runtime.Object, error) {
	m, ok := v.AsValue().Unstructured().(map[string]any)
	if !ok {
		return nil, fmt.Errorf("an object was expected, not a %T", v.AsValue().Unstructured())
	}
	return fromMap(m)
}

// New makes an empty object.
func (d *definition) New(gvk schema.GroupVersionKind) (runtime.Object, error) {
	return &Object{TypeMeta: metav1.TypeMeta{APIVersion: gvk.GroupVersion().String(), Kind: gvk.Kind}, Rest: map[string]any{}}, nil
}

// Default fills an object by its version's schema.
func (d *definition) Default(obj runtime.Object) {
	o, ok := obj.(*Object)
	if !ok {
		return
	}
	if v := d.version(o.GroupVersionKind().Version); v != nil {
		_ = v.reshape(o) // what cannot be read is found by validation
	}
}

// ConvertToVersion converts an object to another version of the definition.
func (d *definition) ConvertToVersion(in runtime.Object, target runtime.GroupVersioner) (runtime.Object, error) {
	if u, ok := in.(*unstructured.Unstructured); ok {
		o, err := fromMap(u.Object)
		if err != nil {
			return nil, err
		}
		in = o
	}
	o, ok := in.(*Object)
	if !ok {
		return nil, fmt.Errorf("a custom object was expected, not a %T", in)
	}
	to, ok := target.KindForGroupVersionKinds([]schema.GroupVersionKind{o.GroupVersionKind()})
	if gv, is := target.(schema.GroupVersion); is {
		to, ok = gv.WithKind(o.Kind), true
	}
	if !ok || d.version(to.Version) == nil {
		return nil, runtime.NewNotRegisteredErrForTarget("definition", nil, target)
	}
	return d.to(o, d.version(to.Version))
}

// Convert is not asked of a definition by field management.
func (d *definition) Convert(in, out, _ any) error {
	return fmt.Errorf("converting %T into %T is not a definition's business", in, out)
}

// ConvertFieldLabel leaves labels as they are.
func (d *definition) ConvertFieldLabel(_ schema.GroupVersionKind, label, value string) (string, string, error) {
	return label, value, nil
}

// objectMetaModels are the metadata's schemas as far as field management goes by them.
func objectMetaModels() map[string]*spec.Schema {
	texts := spec.MapProperty(spec.StringProperty())
	text, number := *spec.StringProperty(), *spec.Int64Property()
	list := func(items *spec.Schema, typ string, keys ...any) spec.Schema {
		s := spec.ArrayProperty(items)
		s.AddExtension("x-kubernetes-list-type", typ)
		if keys != nil {
			s.AddExtension("x-kubernetes-list-map-keys", keys)
		}
		return *s
	}
	owner := new(spec.Schema).Typed("object", "").SetProperty("apiVersion", text).SetProperty("kind", text).SetProperty("name", text).SetProperty("uid", text).
		SetProperty("controller", *spec.BooleanProperty()).SetProperty("blockOwnerDeletion", *spec.BooleanProperty())
	owner.AddExtension("x-kubernetes-map-type", "atomic")
	meta := new(spec.Schema).Typed("object", "").SetProperty("annotations", *texts).SetProperty("labels", *texts).
		SetProperty("finalizers", list(spec.StringProperty(), "set")).
		SetProperty("ownerReferences", list(spec.RefSchema(definitionsV3+metaModels+"OwnerReference"), "map", "uid")).
		SetProperty("generation", number).SetProperty("deletionGracePeriodSeconds", number).
		SetProperty("managedFields", list(new(spec.Schema).Typed("object", ""), "atomic"))
	for _, f := range []string{"name", "generateName", "namespace", "selfLink", "uid", "resourceVersion", "creationTimestamp", "deletionTimestamp"} {
		meta.SetProperty(f, text)
	}
	return map[string]*spec.Schema{metaModels + "ObjectMeta": meta, metaModels + "OwnerReference": owner}
}
