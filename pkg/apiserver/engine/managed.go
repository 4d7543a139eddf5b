package engine

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/client-go/applyconfigurations"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
	smdschema "sigs.k8s.io/structured-merge-diff/v6/schema"
	"sigs.k8s.io/structured-merge-diff/v6/typed"
	"sigs.k8s.io/structured-merge-diff/v6/value"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/staging/api/scheme"
)

// fieldManager keeps the managedFields of one served version and subresource.
type fieldManager struct {
	fields *managedfields.FieldManager
}

// typeConverter knows the published schema of every built-in type; it is parsed on first need.
var typeConverter = sync.OnceValue(func() managedfields.TypeConverter {
	return &converter{known: applyconfigurations.NewTypeConverter(scheme.Scheme), guess: managedfields.NewDeducedTypeConverter()}
})

// TypeConverter answers what field management knows of the built-in types; it is large, so others share it.
func TypeConverter() managedfields.TypeConverter { return typeConverter() }

// typeOf is where a kind stands in the schema.
type typeOf struct {
	schema *smdschema.Schema
	ref    smdschema.TypeRef
}

// converter falls back to what an object's own shape tells where there is no published schema (the API's own
// extension kinds, and reviews): lists are then atomic.
type converter struct {
	known, guess managedfields.TypeConverter
	types        sync.Map // of typeOf by GroupVersionKind
}

func (c *converter) ObjectToTyped(obj runtime.Object, opts ...typed.ValidationOptions) (*typed.TypedValue, error) {
	if deduced(obj.GetObjectKind().GroupVersionKind().Group) {
		return c.guess.ObjectToTyped(obj, opts...)
	}
	if _, loose := obj.(*unstructured.Unstructured); loose || !slices.Contains(opts, typed.AllowDuplicates) {
		return c.known.ObjectToTyped(obj, opts...)
	}
	// What lies in a Go type fits its schema, and duplicates are let through: there is nothing to validate.
	t, err := c.typeOf(obj)
	if err != nil {
		return nil, err
	}
	v, err := value.NewValueReflect(obj)
	if err != nil {
		return nil, fmt.Errorf("reading the fields of a %T: %w", obj, err)
	}
	return typed.AsTypedUnvalidated(v, t.schema, t.ref), nil
}

func (c *converter) typeOf(obj runtime.Object) (typeOf, error) {
	gvk := obj.GetObjectKind().GroupVersionKind()
	if t, ok := c.types.Load(gvk); ok {
		return t.(typeOf), nil
	}
	v, err := c.known.ObjectToTyped(obj, typed.AllowDuplicates)
	if err != nil {
		return typeOf{}, err
	}
	t := typeOf{v.Schema(), v.TypeRef()}
	c.types.Store(gvk, t)
	return t, nil
}

// TypedToObject answers an object of the Go type that its kind has.
func (c *converter) TypedToObject(v *typed.TypedValue) (runtime.Object, error) {
	loose, err := c.known.TypedToObject(v)
	if err != nil {
		return nil, err
	}
	u, ok := loose.(*unstructured.Unstructured)
	if !ok {
		return loose, nil
	}
	obj, err := scheme.Scheme.New(u.GroupVersionKind())
	if err != nil {
		return nil, err
	}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, obj); err != nil {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("the applied configuration does not fit a %s: %v", u.GetKind(), err))
	}
	return obj, nil
}

func deduced(group string) bool {
	switch group {
	case "apiextensions.k8s.io", "apiregistration.k8s.io", "authentication.k8s.io", "authorization.k8s.io":
		return true
	}
	return false
}

// fieldManager answers the manager for the call's version and subresource.
func (c *call) fieldManager() (*fieldManager, error) {
	s := c.served
	s.mu.Lock()
	defer s.mu.Unlock()
	if m := s.managers[subOf(c)]; m != nil {
		return m, nil
	}
	if c.def.Loose != nil {
		f, err := c.def.Loose.Manager(subOf(c))
		if err != nil {
			return nil, fmt.Errorf("managing the fields of %s: %w", c.def.Kind, err)
		}
		s.managers[subOf(c)] = &fieldManager{f}
		return s.managers[subOf(c)], nil
	}
	v := versions{c.def}
	f, err := managedfields.NewDefaultFieldManager(typeConverter(), v, v, v, c.gvk(), c.def.Storage.GV, subOf(c), resets(c))
	if err != nil {
		return nil, fmt.Errorf("managing the fields of %s: %w", c.def.Kind, err)
	}
	m := &fieldManager{f}
	s.managers[subOf(c)] = m
	return m, nil
}

// resets are the fields that a write cannot own since the server keeps them as they are: the status, through the main
// resource of a kind that has it as a subresource.
func resets(c *call) map[fieldpath.APIVersion]fieldpath.Filter {
	if c.info.Sub != "" || c.def.Sub("status") == nil {
		return nil
	}
	out := map[fieldpath.APIVersion]fieldpath.Filter{}
	for _, v := range append([]kind.Version{c.def.Storage}, c.def.Versions...) {
		out[fieldpath.APIVersion(v.GV.String())] = fieldpath.NewExcludeSetFilter(fieldpath.NewSet(fieldpath.MakePathOrDie("status")))
	}
	return out
}

// update records what changed from old (nil for a new object) to obj under the call's manager.
func (m *fieldManager) update(c *call, obj, old kind.Object) error {
	sent, entries := obj.GetManagedFields(), []metav1.ManagedFieldsEntry(nil)
	stamp(c, obj)
	if old != nil {
		stamp(c, old)
		entries = old.GetManagedFields()
		defer old.SetManagedFields(entries) // it is taken off for the comparison
	}
	now, ok := c.shortcut(obj, old)
	if !ok {
		obj.SetManagedFields(sent)
		before := old
		if before == nil {
			before = c.def.Storage.New()
			stamp(c, before)
		}
		before.SetManagedFields(entries)
		var err error
		if now, err = m.ask(c, obj, before, old == nil); err != nil {
			return err
		}
	}
	obj.SetManagedFields(now)
	if c.info.Sub == "scale" {
		timeless(obj.GetManagedFields(), c.manager)
	}
	if old != nil && sameEntries(obj.GetManagedFields(), entries) {
		obj.SetManagedFields(entries)
	}
	return nil
}

// ask lets the library find what changed from old to obj, both stamped, and answers the entries then.
func (m *fieldManager) ask(c *call, obj, old kind.Object, isNew bool) ([]metav1.ManagedFieldsEntry, error) {
	if !isNew && c.def.Loose == nil {
		old, obj = unlike(old, obj)
	}
	out, ok := m.fields.UpdateNoErrors(old, obj, c.manager).(kind.Object)
	if !ok {
		return nil, fmt.Errorf("managing fields made something else of a %T", obj)
	}
	return out.GetManagedFields(), nil
}

// timeless takes the time from what a manager owns through scale, as upstream leaves it out.
func timeless(entries []metav1.ManagedFieldsEntry, manager string) {
	for i := range entries {
		if e := &entries[i]; e.Subresource == "scale" && e.Manager == manager && e.Operation == metav1.ManagedFieldsOperationUpdate {
			e.Time = nil
		}
	}
	// Entries stand in the order of their times, those without one first.
	slices.SortStableFunc(entries, func(a, b metav1.ManagedFieldsEntry) int {
		if n := strings.Compare(string(a.Operation), string(b.Operation)); n != 0 || (a.Time == nil) == (b.Time == nil) {
			return n
		}
		if a.Time == nil {
			return -1
		}
		return 1
	})
}

// sameEntries tells whether nothing but times differs: then nothing was written.
func sameEntries(a, b []metav1.ManagedFieldsEntry) bool {
	return slices.EqualFunc(a, b, func(x, y metav1.ManagedFieldsEntry) bool {
		x.Time, y.Time = nil, nil
		return equality.Semantic.DeepEqual(x, y)
	})
}

// apply merges an applied configuration (of the version asked for) into old, nil for a new object.
func (m *fieldManager) apply(c *call, old kind.Object, patch runtime.Object, manager string, force bool) (kind.Object, error) {
	before := old
	if before == nil {
		before = c.def.Storage.New()
	}
	stamp(c, before)
	entries := before.GetManagedFields()
	out, err := m.fields.Apply(before, patch, manager, force)
	before.SetManagedFields(entries)
	if err != nil && strings.HasPrefix(err.Error(), "failed to create typed patch object") {
		return nil, wrong{err} // what was sent does not fit the schema
	}
	if err != nil {
		return nil, err
	}
	return out.(kind.Object), nil
}

// stamp writes a hub object's kind, which field management goes by.
func stamp(c *call, obj kind.Object) {
	obj.GetObjectKind().SetGroupVersionKind(c.def.GVK(&c.def.Storage))
}

// versions converts between a row's versions for field management, and makes its objects. Its objects are shared with
// the caller, as field management expects.
type versions struct{ def *kind.Def }

// New makes an empty object.
func (v versions) New(gvk schema.GroupVersionKind) (runtime.Object, error) {
	if ver := v.version(gvk.GroupVersion()); ver != nil {
		o := ver.New()
		o.GetObjectKind().SetGroupVersionKind(gvk)
		return o, nil
	}
	return nil, fmt.Errorf("no %s", gvk)
}

// Default fills an object as a request in its version would be.
func (v versions) Default(obj runtime.Object) {
	if ver := v.version(obj.GetObjectKind().GroupVersionKind().GroupVersion()); ver != nil && ver.Default != nil {
		ver.Default(obj)
	}
}

func (v versions) version(gv schema.GroupVersion) *kind.Version {
	if gv == v.def.Storage.GV {
		return &v.def.Storage
	}
	return v.def.Version(gv)
}

// ConvertToVersion converts an object of any of the row's versions to target.
func (v versions) ConvertToVersion(in runtime.Object, target runtime.GroupVersioner) (runtime.Object, error) {
	gvk := in.GetObjectKind().GroupVersionKind()
	want, ok := target.KindForGroupVersionKinds([]schema.GroupVersionKind{gvk, v.def.GVK(&v.def.Storage)})
	if gv, isGV := target.(schema.GroupVersion); isGV {
		want, ok = gv.WithKind(gvk.Kind), true
	}
	if !ok {
		return nil, fmt.Errorf("%s cannot be converted to %v", gvk, target)
	}
	obj, isObj := in.(kind.Object)
	if !isObj || want == gvk {
		return in, nil
	}
	from, to := v.version(gvk.GroupVersion()), v.version(want.GroupVersion())
	if from == nil || to == nil {
		return nil, runtime.NewNotRegisteredErrForTarget("row", nil, target)
	}
	hub, err := from.Hub(obj)
	if err != nil {
		return nil, err
	}
	out, err := to.Of(hub)
	if err != nil {
		return nil, err
	}
	out.GetObjectKind().SetGroupVersionKind(want)
	return out, nil
}

// Convert is not asked of a row by field management.
func (v versions) Convert(in, out, _ any) error {
	return fmt.Errorf("converting %T into %T is not a row's business", in, out)
}

// ConvertFieldLabel leaves labels as they are.
func (v versions) ConvertFieldLabel(_ schema.GroupVersionKind, label, value string) (string, string, error) {
	return label, value, nil
}
