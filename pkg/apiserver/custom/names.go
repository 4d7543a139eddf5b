package custom

import (
	"errors"
	"fmt"
	"slices"

	"k8s.io/apiextensions-apiserver/pkg/apihelpers"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	structural "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
)

// taken are the names that other definitions of a group have.
type taken struct{ resources, kinds []string }

func takenBy(others map[string]apiextensionsv1.CustomResourceDefinitionNames) (t taken) {
	for _, n := range others {
		t.resources = append(append(t.resources, n.Plural, n.Singular), n.ShortNames...)
		t.kinds = append(t.kinds, n.Kind, n.ListKind)
	}
	return t
}

// judge sets in crd's status which names it gets, and every condition that follows from the definition alone. others are
// what those of the same group got.
func judge(crd *apiextensionsv1.CustomResourceDefinition, others map[string]apiextensionsv1.CustomResourceDefinitionNames) {
	accepted := apiextensionsv1.CustomResourceDefinitionCondition{
		Type: apiextensionsv1.NamesAccepted, Status: apiextensionsv1.ConditionTrue, Reason: "NoConflicts", Message: "no conflicts found",
	}
	refuse := func(reason string, err error) {
		accepted.Status, accepted.Reason, accepted.Message = apiextensionsv1.ConditionFalse, reason, err.Error()
	}
	t, want, got := takenBy(others), crd.Spec.Names, &crd.Status.AcceptedNames
	one := func(want string, got *string, used []string, reason string) {
		if *got != want && slices.Contains(used, want) {
			refuse(reason, fmt.Errorf("%q is already in use", want))
			return
		}
		*got = want
	}
	one(want.Plural, &got.Plural, t.resources, "PluralConflict")
	one(want.Singular, &got.Singular, t.resources, "SingularConflict")
	var errs []error
	for _, s := range want.ShortNames {
		if !slices.Contains(got.ShortNames, s) && slices.Contains(t.resources, s) {
			errs = append(errs, fmt.Errorf("%q is already in use", s))
		}
	}
	if err := errors.Join(errs...); err != nil {
		refuse("ShortNamesConflict", err)
	} else {
		got.ShortNames = want.ShortNames
	}
	one(want.Kind, &got.Kind, t.kinds, "KindConflict")
	one(want.ListKind, &got.ListKind, t.kinds, "ListKindConflict")
	got.Categories = want.Categories

	set(crd, accepted)
	switch {
	case apihelpers.IsCRDConditionTrue(crd, apiextensionsv1.Established): // once and for all
	case accepted.Status == apiextensionsv1.ConditionTrue && validCA(crd):
		set(crd, apiextensionsv1.CustomResourceDefinitionCondition{
			Type: apiextensionsv1.Established, Status: apiextensionsv1.ConditionTrue, Reason: "InitialNamesAccepted", Message: "the initial names have been accepted",
		})
	case accepted.Status == apiextensionsv1.ConditionTrue:
		set(crd, apiextensionsv1.CustomResourceDefinitionCondition{
			Type: apiextensionsv1.Established, Status: apiextensionsv1.ConditionFalse, Reason: "InvalidCABundle", Message: "The conversion webhook CABundle is invalid",
		})
	default:
		set(crd, apiextensionsv1.CustomResourceDefinitionCondition{
			Type: apiextensionsv1.Established, Status: apiextensionsv1.ConditionFalse, Reason: "NotAccepted", Message: "not all names are accepted",
		})
	}
	judgeSchema(crd)
	judgeApproval(crd)
}

// set takes a condition over if it says anything new.
func set(crd *apiextensionsv1.CustomResourceDefinition, c apiextensionsv1.CustomResourceDefinitionCondition) {
	if old := apihelpers.FindCRDCondition(crd, c.Type); old == nil || !apihelpers.IsCRDConditionEquivalent(old, &c) {
		apihelpers.SetCRDCondition(crd, c)
	}
}

// judgeSchema tells of schemas that are not structural; there are such in clusters older than this API's first version.
func judgeSchema(crd *apiextensionsv1.CustomResourceDefinition) {
	var errs field.ErrorList
	if crd.Spec.PreserveUnknownFields {
		errs = append(errs, field.Invalid(field.NewPath("spec", "preserveUnknownFields"), true, "must be false"))
	}
	for i, v := range crd.Spec.Versions {
		if v.Schema == nil || v.Schema.OpenAPIV3Schema == nil {
			continue
		}
		at := field.NewPath("spec", "versions").Index(i).Child("schema", "openAPIV3Schema")
		props := &apiextensions.JSONSchemaProps{}
		if err := apiextensionsv1.Convert_v1_JSONSchemaProps_To_apiextensions_JSONSchemaProps(v.Schema.OpenAPIV3Schema, props, nil); err != nil {
			errs = append(errs, field.Invalid(at, "", err.Error()))
			continue
		}
		s, err := structural.NewStructural(props)
		if err != nil {
			errs = append(errs, field.Invalid(at, "", err.Error()))
			continue
		}
		errs = append(errs, structural.ValidateStructural(at, s)...)
	}
	if len(errs) == 0 {
		apihelpers.RemoveCRDCondition(crd, apiextensionsv1.NonStructuralSchema)
		return
	}
	set(crd, apiextensionsv1.CustomResourceDefinitionCondition{
		Type: apiextensionsv1.NonStructuralSchema, Status: apiextensionsv1.ConditionTrue, Reason: "Violations", Message: errs.ToAggregate().Error(),
	})
}

// judgeApproval tells whether a definition in one of the community's groups says who approved it.
func judgeApproval(crd *apiextensionsv1.CustomResourceDefinition) {
	if !apihelpers.IsProtectedCommunityGroup(crd.Spec.Group) {
		return
	}
	c := apiextensionsv1.CustomResourceDefinitionCondition{Type: apiextensionsv1.KubernetesAPIApprovalPolicyConformant}
	state, reason := apihelpers.GetAPIApprovalState(crd.Annotations)
	c.Message = reason
	switch state {
	case apihelpers.APIApprovalInvalid:
		c.Status, c.Reason = apiextensionsv1.ConditionFalse, "InvalidAnnotation"
	case apihelpers.APIApprovalMissing:
		c.Status, c.Reason = apiextensionsv1.ConditionFalse, "MissingAnnotation"
	case apihelpers.APIApproved:
		c.Status, c.Reason = apiextensionsv1.ConditionTrue, "ApprovedAnnotation"
	case apihelpers.APIApprovalBypassed:
		c.Status, c.Reason = apiextensionsv1.ConditionFalse, "UnapprovedAnnotation"
	default:
		c.Status, c.Reason = apiextensionsv1.ConditionUnknown, "UnknownAnnotation"
	}
	set(crd, c)
}

// own records in managedFields that this server wrote the status.
func own(crd *apiextensionsv1.CustomResourceDefinition, now metav1.Time) {
	set := fieldpath.NewSet()
	n := crd.Status.AcceptedNames
	for f, has := range map[string]bool{
		"plural": n.Plural != "", "singular": n.Singular != "", "kind": n.Kind != "", "listKind": n.ListKind != "", "shortNames": len(n.ShortNames) > 0, "categories": len(n.Categories) > 0,
	} {
		if has {
			set.Insert(fieldpath.MakePathOrDie("status", "acceptedNames", f))
		}
	}
	for _, c := range crd.Status.Conditions {
		at := []any{"status", "conditions", fieldpath.KeyByFields("type", string(c.Type))}
		set.Insert(fieldpath.MakePathOrDie(at...))
		for _, f := range []string{"type", "status", "reason", "message", "lastTransitionTime"} {
			set.Insert(fieldpath.MakePathOrDie(append(slices.Clone(at), f)...))
		}
	}
	raw, err := set.ToJSON()
	if err != nil {
		return // the entry is for people to look at
	}
	entry := metav1.ManagedFieldsEntry{
		Manager: "kube-apiserver", Operation: metav1.ManagedFieldsOperationUpdate, APIVersion: apiextensionsv1.SchemeGroupVersion.String(), Time: &now,
		FieldsType: "FieldsV1", FieldsV1: &metav1.FieldsV1{Raw: raw}, Subresource: "status",
	}
	crd.ManagedFields = append([]metav1.ManagedFieldsEntry{entry}, slices.DeleteFunc(crd.ManagedFields, func(e metav1.ManagedFieldsEntry) bool {
		return e.Manager == entry.Manager && e.Operation == entry.Operation && e.Subresource == entry.Subresource
	})...)
}
