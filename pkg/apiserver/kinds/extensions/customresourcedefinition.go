package extensions

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"k8s.io/apiextensions-apiserver/pkg/apihelpers"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apiextensionsv1beta1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1beta1"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

type crd = apiextensionsv1.CustomResourceDefinition

// CustomResourceDefinition is the row of customresourcedefinitions. What follows from one is package custom's business.
func CustomResourceDefinition() *kind.Def {
	return kind.Row(kind.Def{
		Kind: "CustomResourceDefinition", Resource: "customresourcedefinitions",
		ShortNames: []string{"crd", "crds"},
		Categories: []string{"api-extensions"},
		Prefix:     "apiextensions.k8s.io/customresourcedefinitions",
		Generation: true, NeedVersionOnUpdate: true, ReturnDeleted: true,
		Prepare: kind.On(prepareDefinition), Check: kind.Ask(checkDefinition), Warn: kind.Ask(warnDefinition), OnDelete: endDefinition, Older: olderDefinition,
		Subs: []kind.Sub{{Name: "status", Aspect: &kind.Rules{Check: kind.Ask(checkDefinitionStatus)}}},
	}, kind.In[crd, apiextensionsv1.CustomResourceDefinitionList](apiextensionsv1.SchemeGroupVersion, apiextensionsv1.SetObjectDefaults_CustomResourceDefinition))
}

// prepareDefinition keeps the list of versions in which objects may be stored.
func prepareDefinition(_ *kind.Op, c, _ *crd) {
	for _, v := range c.Spec.Versions {
		if v.Storage && !slices.Contains(c.Status.StoredVersions, v.Name) {
			c.Status.StoredVersions = append(slices.Clone(c.Status.StoredVersions), v.Name)
		}
	}
}

// endDefinition lets the objects be deleted before the definition goes.
func endDefinition(_ *kind.Op, obj kind.Object) {
	c := obj.(*crd)
	if !apihelpers.CRDHasFinalizer(c, apiextensionsv1.CustomResourceCleanupFinalizer) {
		c.Finalizers = append(c.Finalizers, apiextensionsv1.CustomResourceCleanupFinalizer)
	}
	c.DeletionGracePeriodSeconds = nil
	c.Generation--
	apihelpers.SetCRDCondition(c, apiextensionsv1.CustomResourceDefinitionCondition{
		Type: apiextensionsv1.Terminating, Status: apiextensionsv1.ConditionTrue, Reason: "InstanceDeletionPending",
		Message: "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon",
	})
}

// olderDefinition reads a definition as upstream stores it: in the version that the API began with.
func olderDefinition(gv schema.GroupVersion, value []byte) (kind.Object, error) {
	if gv != apiextensionsv1beta1.SchemeGroupVersion {
		return nil, fmt.Errorf("there is no version %s", gv)
	}
	old, hub, out := &apiextensionsv1beta1.CustomResourceDefinition{}, &apiextensions.CustomResourceDefinition{}, &crd{}
	if err := json.Unmarshal(value, old); err != nil {
		return nil, err
	}
	apiextensionsv1beta1.SetObjectDefaults_CustomResourceDefinition(old)
	if err := apiextensionsv1beta1.Convert_v1beta1_CustomResourceDefinition_To_apiextensions_CustomResourceDefinition(old, hub, nil); err != nil {
		return nil, err
	}
	if err := apiextensionsv1.Convert_apiextensions_CustomResourceDefinition_To_v1_CustomResourceDefinition(hub, out, nil); err != nil {
		return nil, err
	}
	apiextensionsv1.SetObjectDefaults_CustomResourceDefinition(out)
	return out, nil
}

// internal is the form that the published validation is about.
func internal(c *crd) (*apiextensions.CustomResourceDefinition, error) {
	out := &apiextensions.CustomResourceDefinition{}
	return out, apiextensionsv1.Convert_v1_CustomResourceDefinition_To_apiextensions_CustomResourceDefinition(c.DeepCopy(), out, nil)
}

// ask puts a definition, and the one it replaces, to the published validation.
func ask(ctx context.Context, c, old *crd, create func(context.Context, *apiextensions.CustomResourceDefinition) field.ErrorList,
	update func(_ context.Context, c, old *apiextensions.CustomResourceDefinition) field.ErrorList) field.ErrorList {
	now, err := internal(c)
	if err != nil {
		return field.ErrorList{field.Invalid(field.NewPath("spec"), "", err.Error())}
	}
	if old == nil {
		return create(ctx, now)
	}
	was, err := internal(old)
	if err != nil {
		return field.ErrorList{field.InternalError(field.NewPath("spec"), err)}
	}
	return update(ctx, now, was)
}

func checkDefinition(op *kind.Op, c, old *crd) field.ErrorList {
	return ask(op.Ctx, c, old, validation.ValidateCustomResourceDefinition, validation.ValidateCustomResourceDefinitionUpdate)
}

func checkDefinitionStatus(op *kind.Op, c, old *crd) field.ErrorList {
	return ask(op.Ctx, c, old, nil, validation.ValidateUpdateCustomResourceDefinitionStatus)
}

// warnDefinition tells of what is allowed and not understood, unless it was there before.
func warnDefinition(_ *kind.Op, c, old *crd) []string {
	out := doubts(c)
	if old != nil {
		had := doubts(old)
		out = slices.DeleteFunc(out, func(w string) bool { return slices.Contains(had, w) })
	}
	return out
}
