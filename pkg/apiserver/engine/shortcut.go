package engine

import (
	"reflect"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/structured-merge-diff/v6/schema"
	"sigs.k8s.io/structured-merge-diff/v6/typed"

	"github.com/sextant-k8s/sextant/pkg/apiserver/fields"
	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

// shortcut answers the managedFields of obj after an update of old (nil for a new object), as the library of managed fields
// would. It takes those of both off. It answers false where only that library knows: see package fields.
func (c *call) shortcut(obj, old kind.Object) ([]metav1.ManagedFieldsEntry, bool) {
	if c.def.Loose != nil || c.ver.GV != c.def.Storage.GV || c.info.Sub == "scale" {
		return nil, false
	}
	t, err := c.served.fieldsOf(obj)
	if err != nil {
		return nil, false
	}
	sent, entries := obj.GetManagedFields(), []metav1.ManagedFieldsEntry(nil)
	if old != nil {
		entries = old.GetManagedFields()
	}
	if c.info.Sub == "" && sent != nil {
		if entries = sent; len(sent) == 0 || len(sent) == 1 && reflect.DeepEqual(sent[0], metav1.ManagedFieldsEntry{}) {
			return nil, false // all are to be forgotten
		}
	}
	if len(entries) == 0 && old != nil && old.GetUID() != "" {
		return nil, true // nobody's fields are kept
	}
	by := fields.Write{Manager: c.manager, Version: c.ver.GV.String(), Subresource: c.info.Sub, Now: c.now}
	if by.Manager == "" {
		by.Manager = "unknown"
	}
	if resets(c) != nil {
		by.Ignore = "status"
	}
	obj.SetManagedFields(nil)
	if old == nil {
		return t.Update(nil, obj, entries, by)
	}
	old.SetManagedFields(nil)
	return t.Update(old, obj, entries, by)
}

// fieldsOf answers how the fields of the resource's objects are compared, by one of them.
func (s *served) fieldsOf(obj kind.Object) (*fields.Type, error) {
	return s.fields.Of(reflect.TypeOf(obj).Elem(), func() (*schema.Schema, schema.TypeRef, error) {
		v, err := typeConverter().ObjectToTyped(obj.(runtime.Object), typed.AllowDuplicates)
		if err != nil {
			return nil, schema.TypeRef{}, err
		}
		return v.Schema(), v.TypeRef(), nil
	})
}
