package custom

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"k8s.io/apiextensions-apiserver/pkg/apihelpers"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/apimachinery/pkg/util/validation/field"
	utilversion "k8s.io/apimachinery/pkg/version"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/pkg/apiserver/webhook"
)

// definition is a CustomResourceDefinition made into rows.
type definition struct {
	crd      *apiextensionsv1.CustomResourceDefinition
	versions []*version // best first
	storage  *version
	convert  *converter
	typed    func() (managedfields.TypeConverter, error)

	// main is the row of the stored objects, served are those of the served versions, main among them if it is one.
	main   *kind.Def
	served []*kind.Def
}

// newDefinition reads a definition whose names are accepted.
func newDefinition(crd *apiextensionsv1.CustomResourceDefinition, caller *webhook.Caller) (*definition, error) {
	d := &definition{crd: crd, convert: &converter{crd: crd, caller: caller}}
	d.typed = sync.OnceValues(d.newTypes)
	for i := range crd.Spec.Versions {
		v, err := newVersion(crd, &crd.Spec.Versions[i])
		if err != nil {
			return nil, err
		}
		d.versions = append(d.versions, v)
		if v.Storage {
			d.storage = v
		}
	}
	if d.storage == nil {
		return nil, fmt.Errorf("no version of %s is stored", crd.Name)
	}
	slices.SortFunc(d.versions, func(a, b *version) int { return utilversion.CompareKubeAwareVersionStrings(b.Name, a.Name) })
	d.main = d.row(d.storage)
	d.main.FieldNames, d.main.Fields = d.fields()
	for _, v := range d.versions {
		switch {
		case v.Served && v == d.storage:
			d.served = append(d.served, d.main)
		case v.Served:
			d.served = append(d.served, d.row(v))
		}
	}
	return d, nil
}

func (d *definition) version(name string) *version {
	for _, v := range d.versions {
		if v.Name == name {
			return v
		}
	}
	return nil
}

func (v *version) listKind() string { return v.crd.Status.AcceptedNames.ListKind }

func (v *version) scale() *apiextensionsv1.CustomResourceSubresourceScale {
	if v.Subresources == nil {
		return nil
	}
	return v.Subresources.Scale
}

func (v *version) hasStatus() bool { return v.Subresources != nil && v.Subresources.Status != nil }

// fields are the selectable fields of all versions, by which the cache knows the stored objects.
func (d *definition) fields() ([]string, func(kind.Object) map[string]string) {
	all := map[string]bool{}
	for _, v := range d.versions {
		for _, f := range v.SelectableFields {
			all[strings.TrimPrefix(f.JSONPath, ".")] = true
		}
	}
	if len(all) == 0 {
		return nil, nil
	}
	names := slices.Sorted(maps.Keys(all))
	return names, func(obj kind.Object) map[string]string { return selected(obj.(*Object).Rest, names) }
}

// These are in the order in which upstream tells them. While a definition is being deleted, what ends its objects is all that is shown.
var (
	verbs       = []string{"delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"}
	endingVerbs = []string{"delete", "deletecollection", "get", "list", "watch"}
)

// row makes the row of one version.
func (d *definition) row(v *version) *kind.Def {
	names := d.crd.Status.AcceptedNames
	row := &kind.Def{
		Group: d.crd.Spec.Group, Kind: names.Kind, Resource: names.Plural, Singular: names.Singular, ShortNames: names.ShortNames, Categories: names.Categories,
		Namespaced: d.crd.Spec.Scope == apiextensionsv1.NamespaceScoped,
		Prefix:     d.crd.Spec.Group + "/" + names.Plural,
		Verbs:      verbs,
		Prepare:    v.prepare, Check: v.checkMain, Warn: warn, Closed: d.closed, NeedVersionOnUpdate: true,
	}
	if d.ending() {
		row.Shown = endingVerbs
	}
	row.Columns, row.Row = v.columns()
	row.Storage = kind.Version{
		GV: v.gvk.GroupVersion(), Kind: v.gvk.Kind,
		New:        func() kind.Object { return &Object{Rest: map[string]any{}} },
		NewList:    func() runtime.Object { return &List{of: v.gvk} },
		Deprecated: v.deprecation(),
	}
	if v.Served {
		row.Versions = []kind.Version{row.Storage}
	}
	for _, f := range v.SelectableFields {
		row.FieldNames = append(row.FieldNames, strings.TrimPrefix(f.JSONPath, "."))
	}
	if v.hasStatus() {
		row.Subs = append(row.Subs, kind.Sub{Name: "status", Aspect: &kind.Rules{Prepare: prepareStatus, Check: v.checkStatus}})
	}
	if v.scale() != nil {
		row.Subs = append(row.Subs, kind.Sub{Name: "scale", Scale: &kind.Scale{Read: v.readScale, Write: v.writeScale}})
	}
	row.Loose = &kind.Loose{
		ListKind: names.ListKind,
		Encode:   func(obj kind.Object) ([]byte, error) { return d.encode(obj.(*Object), v) },
		Decode:   func(value []byte) (kind.Object, error) { return d.decode(value, v) },
		Peek:     d.peek,
		Read:     func(body []byte, strict bool) (kind.Object, []error, error) { return v.readSent(body, strict) },
		Shape:    func(obj kind.Object) error { return v.reshape(obj.(*Object)) },
		To: func(obj kind.Object, gv schema.GroupVersion) (kind.Object, error) {
			return d.toGV(obj.(*Object), v, gv)
		},
		From:     func(obj kind.Object) (kind.Object, error) { return d.toGV(obj.(*Object), nil, v.gvk.GroupVersion()) },
		Types:    d.typed,
		Manager:  func(sub string) (*managedfields.FieldManager, error) { return d.manager(v, sub) },
		Describe: v.describe,
	}
	for _, o := range d.versions {
		if o != v && o.Served {
			row.Loose.Equivalents = append(row.Loose.Equivalents, o.gvk.GroupVersion())
		}
	}
	if v != d.storage {
		row.Loose.Adopt = func(objs []kind.Object) ([]kind.Object, error) { return d.adopt(objs, v) }
	}
	return row
}

// deprecation is the warning that requests of the version get.
func (v *version) deprecation() string {
	switch {
	case !v.Deprecated:
		return ""
	case v.DeprecationWarning != nil:
		return *v.DeprecationWarning
	}
	return fmt.Sprintf("%s/%s %s is deprecated", v.gvk.Group, v.gvk.Version, v.gvk.Kind)
}

// ending tells whether the definition is being deleted.
func (d *definition) ending() bool {
	return apihelpers.IsCRDConditionTrue(d.crd, apiextensionsv1.Terminating)
}

// closed refuses new objects while the definition is being deleted.
func (d *definition) closed(*kind.Op) error {
	if !d.ending() {
		return nil
	}
	err := apierrors.NewMethodNotSupported(schema.GroupResource{Group: d.crd.Spec.Group, Resource: d.crd.Status.AcceptedNames.Plural}, "create")
	err.ErrStatus.Message = "create not allowed while custom resource definition is terminating"
	return err
}

// readSent is read for what a client sent: what is wrong with it is the client's fault.
func (v *version) readSent(body []byte, strict bool) (kind.Object, []error, error) {
	o, problems, err := v.read(body, strict)
	if err != nil {
		return nil, nil, apierrors.NewBadRequest(err.Error())
	}
	switch want := v.gvk.GroupVersion().String(); {
	case o.Kind == "":
		return nil, nil, apierrors.NewBadRequest("Object 'Kind' is missing in '" + clip(string(body)) + "'")
	case o.APIVersion == "":
		o.APIVersion = want
	case o.APIVersion != want:
		return nil, nil, apierrors.NewBadRequest(fmt.Sprintf("the API version in the data (%s) does not match the expected API version (%s)", o.APIVersion, want))
	}
	if o.Kind != v.gvk.Kind {
		return nil, nil, apierrors.NewBadRequest(fmt.Sprintf("%s in version %q cannot be handled as a %s: converting (%s) to (%s): unknown conversion",
			o.Kind, v.gvk.Version, v.gvk.Kind, o.GroupVersionKind(), v.gvk))
	}
	return o, problems, nil
}

func clip(s string) string {
	if len(s) > 256 {
		return s[:256]
	}
	return s
}

// prepare drops what a writer may not set and counts generations.
func (v *version) prepare(_ *kind.Op, obj, old kind.Object) {
	o := obj.(*Object)
	o.SetGroupVersionKind(v.gvk)
	if old == nil {
		if v.hasStatus() {
			delete(o.Rest, "status")
		}
		o.Generation = 1
		return
	}
	was := old.(*Object)
	if v.hasStatus() {
		if status, ok := was.Rest["status"]; ok {
			o.Rest["status"] = runtime.DeepCopyJSONValue(status)
		} else {
			delete(o.Rest, "status")
		}
	}
	o.Generation = was.Generation
	if !equality.Semantic.DeepEqual(o.Rest, was.Rest) {
		o.Generation++
	}
}

// prepareStatus keeps everything of old but the status.
func prepareStatus(_ *kind.Op, obj, old kind.Object) {
	o, was := obj.(*Object), old.(*Object)
	kept := was.DeepCopyObject().(*Object)
	kept.ManagedFields, kept.ResourceVersion = o.ManagedFields, o.ResourceVersion
	status, ok := o.Rest["status"]
	if ok {
		kept.Rest["status"] = status
	} else {
		delete(kept.Rest, "status")
	}
	*o = *kept
}

func (v *version) checkMain(op *kind.Op, obj, old kind.Object) field.ErrorList {
	was, _ := old.(*Object)
	o := obj.(*Object)
	o.SetGroupVersionKind(v.gvk)
	return v.check(op.Ctx, o, was, false)
}

func (v *version) checkStatus(op *kind.Op, obj, old kind.Object) field.ErrorList {
	o := obj.(*Object)
	o.SetGroupVersionKind(v.gvk)
	return v.check(op.Ctx, o, old.(*Object), true)
}

func (v *version) readScale(obj kind.Object) (spec, status int32, selector string) {
	s, rest := v.scale(), obj.(*Object).Rest
	n, _, _ := unstructured.NestedInt64(rest, parts(s.SpecReplicasPath)...) // checked when it was written
	m, _, _ := unstructured.NestedInt64(rest, parts(s.StatusReplicasPath)...)
	if s.LabelSelectorPath != nil {
		selector, _, _ = unstructured.NestedString(rest, parts(*s.LabelSelectorPath)...)
	}
	return int32(n), int32(m), selector
}

func (v *version) writeScale(obj kind.Object, replicas int32) {
	o := obj.(*Object)
	_ = unstructured.SetNestedField(o.Rest, int64(replicas), parts(v.scale().SpecReplicasPath)...) // validation finds what is in the way
}

// encode answers the stored form of an object of version v: JSON in the storage version.
func (d *definition) encode(o *Object, v *version) ([]byte, error) {
	o.SetGroupVersionKind(v.gvk) // bytes in the cache do not say it
	stored, err := d.to(o, d.storage)
	if err != nil {
		return nil, err
	}
	b, err := stored.MarshalJSON()
	return append(b, '\n'), err
}

// to converts an object; one of that version already is answered as it is.
func (d *definition) to(o *Object, v *version) (*Object, error) {
	out, err := d.convert.convert([]*Object{o}, v.gvk.GroupVersion())
	if err != nil || out[0] == o {
		return o, err
	}
	return out[0], v.reshape(out[0])
}

// toGV converts an object, of version v unless it says itself, to the version gv.
func (d *definition) toGV(o *Object, v *version, gv schema.GroupVersion) (*Object, error) {
	to := d.version(gv.Version)
	if to == nil {
		return nil, fmt.Errorf("%s has no version %s", d.crd.Name, gv.Version)
	}
	if v != nil {
		o.SetGroupVersionKind(v.gvk)
	}
	return d.to(o, to)
}

// adopt converts objects that the cache answers, all at once.
func (d *definition) adopt(objs []kind.Object, v *version) ([]kind.Object, error) {
	in := make([]*Object, len(objs))
	for i, o := range objs {
		in[i] = o.(*Object)
		if in[i].APIVersion == "" {
			in[i].SetGroupVersionKind(d.storage.gvk)
		}
	}
	conv, err := d.convert.convert(in, v.gvk.GroupVersion())
	if err != nil {
		return nil, err
	}
	out := make([]kind.Object, len(conv))
	for i, o := range conv {
		if err := v.reshape(o); err != nil {
			return nil, err
		}
		o.ResourceVersion = in[i].ResourceVersion
		out[i] = o
	}
	return out, nil
}

// raw reads a stored value in the version it was stored in.
func (d *definition) raw(value []byte) (*Object, error) {
	var m map[string]any
	if err := utiljson.Unmarshal(value, &m); err != nil {
		return nil, fmt.Errorf("reading a stored %s: %w", d.main.Kind, err)
	}
	apiVersion, _ := m["apiVersion"].(string)
	_, name, _ := strings.Cut(apiVersion, "/")
	if v := d.version(name); v != nil {
		return v.open(m)
	}
	return fromMap(m) // of a version that is no more
}

func (d *definition) decode(value []byte, v *version) (kind.Object, error) {
	o, err := d.raw(value)
	if err != nil {
		return nil, err
	}
	return d.to(o, v)
}

// peek reads a stored value into the storage version if that needs no webhook.
func (d *definition) peek(value []byte) (obj kind.Object, current bool, err error) {
	o, err := d.raw(value)
	if err != nil {
		return nil, false, err
	}
	if d.convert.byHook() && o.APIVersion != d.storage.gvk.GroupVersion().String() {
		return o, false, nil
	}
	o, err = d.to(o, d.storage)
	return o, true, err
}
