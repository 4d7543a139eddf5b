package validate

import (
	"encoding/json"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// ControllerRevision answers what is wrong with a stored revision.
func ControllerRevision(r *appsv1.ControllerRevision) field.ErrorList {
	errs := validation.ValidateObjectMeta(&r.ObjectMeta, true, validation.NameIsDNSSubdomain, metadata)
	if r.Data.Raw == nil && r.Data.Object == nil {
		errs = append(errs, field.Required(field.NewPath("data"), "data is mandatory"))
	}
	return append(errs, validation.ValidateNonnegativeField(r.Revision, field.NewPath("revision"))...)
}

// ControllerRevisionUpdate answers what is wrong with a stored revision in the place of old.
func ControllerRevisionUpdate(r, old *appsv1.ControllerRevision) field.ErrorList {
	errs := common(&r.ObjectMeta, &old.ObjectMeta, true)
	errs = append(errs, validation.ValidateNonnegativeField(r.Revision, field.NewPath("revision"))...)
	var is, was any
	if json.Unmarshal(r.Data.Raw, &is) != nil || json.Unmarshal(old.Data.Raw, &was) != nil || !equality.Semantic.DeepEqual(is, was) {
		errs = append(errs, field.Invalid(field.NewPath("data"), r.Data, validation.FieldImmutableErrorMsg))
	}
	return errs
}
