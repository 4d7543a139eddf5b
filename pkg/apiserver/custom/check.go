package custom

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel/model"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/listtype"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/objectmeta"
	schemavalidation "k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"k8s.io/apiserver/pkg/cel/common"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

// check answers what is wrong with an object; status is whether only its status is written. old is nil for a new object.
func (v *version) check(ctx context.Context, o, old *Object, status bool) field.ErrorList {
	c, err := v.checks()
	if err != nil {
		return field.ErrorList{field.InternalError(nil, err)}
	}
	now, err := o.Map()
	if err != nil {
		return field.ErrorList{field.InternalError(nil, err)}
	}
	var before map[string]any
	if old != nil {
		if before, err = old.Map(); err != nil {
			return field.ErrorList{field.InternalError(nil, err)}
		}
	}
	errs := validation.ValidateObjectMeta(&o.ObjectMeta, v.crd.Spec.Scope == apiextensionsv1.NamespaceScoped, validation.NameIsDNSSubdomain, field.NewPath("metadata"))
	if old != nil {
		errs = append(errs, validation.ValidateObjectMetaUpdate(&o.ObjectMeta, &old.ObjectMeta, field.NewPath("metadata"))...)
	}
	var same *common.CorrelatedObject // what did not change need not be valid by today's schema
	var schemaOptions []schemavalidation.ValidationOption
	var ruleOptions []cel.Option
	if old != nil && v.schema != nil {
		same = common.NewCorrelatedObject(now, before, &model.Structural{Structural: v.schema})
		ruleOptions = append(ruleOptions, cel.WithRatcheting(same))
		if status {
			same = same.Key("status")
		}
		schemaOptions = append(schemaOptions, schemavalidation.WithRatcheting(same))
	}
	switch {
	case status:
		if s, ok := now["status"]; ok && c.status != nil {
			errs = append(errs, schemavalidation.ValidateCustomResourceUpdate(field.NewPath("status"), s, before["status"], c.status, schemaOptions...)...)
		}
	case old != nil:
		errs = append(errs, schemavalidation.ValidateCustomResourceUpdate(nil, now, before, c.whole, schemaOptions...)...)
	default:
		errs = append(errs, schemavalidation.ValidateCustomResource(nil, now, c.whole)...)
	}
	errs = append(errs, v.checkScale(now, status)...)
	if v.schema == nil {
		return errs
	}
	if !status {
		errs = append(errs, objectmeta.Validate(ctx, nil, now, v.schema, false)...)
	}
	if old == nil || len(listtype.ValidateListSetsAndMaps(nil, v.schema, before)) == 0 {
		errs = append(errs, listtype.ValidateListSetsAndMaps(nil, v.schema, now)...)
	}
	if c.rules == nil {
		return errs
	}
	if slices.ContainsFunc(errs, blocks) {
		return append(errs, field.Invalid(nil, nil, "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation"))
	}
	var was any
	if before != nil {
		was = before
	}
	broken, _ := c.rules.Validate(ctx, nil, v.schema, now, was, celconfig.RuntimeCELCostBudget, ruleOptions...)
	return append(errs, broken...)
}

// blocks tells that rules cannot be asked about an object with this fault.
func blocks(e *field.Error) bool {
	switch e.Type {
	case field.ErrorTypeNotSupported, field.ErrorTypeRequired, field.ErrorTypeTooLong, field.ErrorTypeTooMany, field.ErrorTypeTypeInvalid:
		return true
	}
	return false
}

func (v *version) checkScale(o map[string]any, status bool) (errs field.ErrorList) {
	s := v.scale()
	if s == nil {
		return nil
	}
	number := func(path string) {
		n, _, err := unstructured.NestedInt64(o, parts(path)...)
		at := field.NewPath(path)
		switch {
		case err != nil:
			errs = append(errs, field.Invalid(at, n, err.Error()))
		case n < 0:
			errs = append(errs, field.Invalid(at, n, "should be a non-negative integer"))
		case n > math.MaxInt32:
			errs = append(errs, field.Invalid(at, n, fmt.Sprintf("should be less than or equal to %v", math.MaxInt32)))
		}
	}
	if !status {
		number(s.SpecReplicasPath)
	}
	number(s.StatusReplicasPath)
	if p := s.LabelSelectorPath; p != nil {
		if text, _, err := unstructured.NestedString(o, parts(*p)...); err != nil {
			errs = append(errs, field.Invalid(field.NewPath(*p), text, err.Error()))
		}
	}
	return errs
}

// parts are the field names of a simple JSON path.
func parts(path string) []string { return strings.Split(strings.TrimPrefix(path, "."), ".") }

// plainFinalizers need no domain.
var plainFinalizers = []string{"orphan", "foregroundDeletion", "kubernetes"}

// warn answers warnings about finalizers that are new.
func warn(_ *kind.Op, obj, old kind.Object) (out []string) {
	var had []string
	if old != nil {
		had = old.GetFinalizers()
	}
	added := slices.Clone(obj.GetFinalizers())
	slices.Sort(added)
	for _, f := range slices.Compact(added) {
		if slices.Contains(had, f) {
			continue
		}
		for _, msg := range utilvalidation.IsQualifiedName(f) {
			out = append(out, fmt.Sprintf("metadata.finalizers: %q: %s", f, msg))
		}
		switch {
		case strings.Contains(f, "/") || slices.Contains(plainFinalizers, f):
		case strings.Contains(f, "."):
			out = append(out, fmt.Sprintf("metadata.finalizers: %q: prefer a domain-qualified finalizer name including a path (/) to avoid accidental conflicts with other finalizer writers", f))
		default:
			out = append(out, fmt.Sprintf("metadata.finalizers: %q: prefer a domain-qualified finalizer name to avoid accidental conflicts with other finalizer writers", f))
		}
	}
	return out
}
