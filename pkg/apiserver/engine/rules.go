package engine

import (
	"reflect"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

// ruleset is under which rules an object is written: the kind's own, or those of an aspect of it.
type ruleset struct {
	aspect *kind.Rules // nil = the kind's own
}

// prepare applies the common part of a write, then the row's.
func (rs *ruleset) prepare(op *kind.Op, obj, old kind.Object) {
	d := op.Def
	switch {
	case rs.aspect != nil && rs.aspect.Prepare != nil:
		rs.aspect.Prepare(op, obj, old)
	case rs.aspect != nil:
		keepAllBut(obj, old, "Status")
	default:
		if d.Sub("status") != nil && !(old == nil && d.StatusOnCreate) {
			keepStatus(obj, old)
		}
		if d.Prepare != nil {
			d.Prepare(op, obj, old)
		}
	}
	if !d.Generation {
		return
	}
	switch {
	case old == nil:
		obj.SetGeneration(1)
	case !sameSpec(obj, old):
		obj.SetGeneration(old.GetGeneration() + 1)
	default:
		obj.SetGeneration(old.GetGeneration())
	}
}

// check answers what is wrong with the object under the rules.
func (rs *ruleset) validate(op *kind.Op, obj, old kind.Object) field.ErrorList {
	if rs.aspect != nil && rs.aspect.Check != nil {
		return rs.aspect.Check(op, obj, old)
	}
	if rs.aspect == nil && op.Def.Check != nil {
		return op.Def.Check(op, obj, old)
	}
	name := validation.NameIsDNSSubdomain
	if op.Def.NameCheck != nil {
		name = op.Def.NameCheck
	}
	errs := validation.ValidateObjectMeta(metaOf(obj), op.Def.Namespaced, name, field.NewPath("metadata"))
	if old != nil {
		errs = append(errs, validation.ValidateObjectMetaUpdate(metaOf(obj), metaOf(old), field.NewPath("metadata"))...)
	}
	return errs
}

// keepStatus makes obj's status that of old, empty on create: the main resource does not write it.
func keepStatus(obj, old kind.Object) {
	f := reflect.ValueOf(obj).Elem().FieldByName("Status")
	if !f.IsValid() {
		return
	}
	if old == nil {
		f.SetZero()
		return
	}
	f.Set(reflect.ValueOf(old).Elem().FieldByName("Status"))
}

// keepAllBut makes every field of obj but the named one and the metadata that of old; of the metadata, only what an
// aspect may write stays.
func keepAllBut(obj, old kind.Object, name string) {
	o, was := reflect.ValueOf(obj).Elem(), reflect.ValueOf(old).Elem()
	for i := range o.NumField() {
		switch o.Type().Field(i).Name {
		case name, "TypeMeta":
		case "ObjectMeta":
			m, prev := metaOf(obj), metaOf(old)
			kept := *prev
			kept.ManagedFields, kept.ResourceVersion = m.ManagedFields, m.ResourceVersion
			kept.Labels, kept.Annotations, kept.Finalizers = m.Labels, m.Annotations, m.Finalizers
			*m = kept
		default:
			o.Field(i).Set(was.Field(i))
		}
	}
}

// sameSpec tells whether nothing but metadata and status differs.
func sameSpec(obj, old kind.Object) bool {
	o, was := reflect.ValueOf(obj).Elem(), reflect.ValueOf(old).Elem()
	for i := range o.NumField() {
		switch o.Type().Field(i).Name {
		case "TypeMeta", "ObjectMeta", "Status":
		default:
			if !equality.Semantic.DeepEqual(o.Field(i).Interface(), was.Field(i).Interface()) {
				return false
			}
		}
	}
	return true
}

// keepIdentity takes over what no write may change from old.
func keepIdentity(obj, old kind.Object) {
	m, was := metaOf(obj), metaOf(old)
	m.CreationTimestamp, m.DeletionTimestamp, m.DeletionGracePeriodSeconds = was.CreationTimestamp, was.DeletionTimestamp, was.DeletionGracePeriodSeconds
	m.GenerateName = was.GenerateName
	m.SelfLink = ""
	if m.UID == "" {
		m.UID = was.UID
	}
	if m.Name == "" {
		m.Name = was.Name
	}
	if m.Namespace == "" {
		m.Namespace = was.Namespace
	}
}

func forbid(path, text string) field.ErrorList {
	return field.ErrorList{field.Forbidden(field.NewPath(path), text)}
}
