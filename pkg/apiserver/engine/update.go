package engine

import (
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

func mustSetRV() field.ErrorList {
	return field.ErrorList{field.Invalid(field.NewPath("metadata", "resourceVersion"), "", "must be specified for an update")}
}

// update replaces an object.
func (e *Engine) update(c *call, rs *ruleset) error {
	opts, err := c.updateOptions()
	if err != nil {
		return err
	}
	sent, err := c.decode()
	if err != nil {
		return err
	}
	if sent.GetName() == "" {
		return apierrors.NewBadRequest(fmt.Sprintf("the name of the object (%s based on URL) was undeterminable: name must be provided", c.info.Name))
	}
	if err := c.place(sent); err != nil {
		return err
	}
	obj, err := e.modify(c, rs, opts, func(kind.Object) (kind.Object, error) {
		return sent.DeepCopyObject().(kind.Object), nil
	})
	isNew := false
	if apierrors.IsNotFound(err) && c.def.CreateOnUpdate && rs.aspect == nil && sent.GetUID() == "" {
		sent.SetResourceVersion("")
		obj, err = e.insert(c, sent, &metav1.CreateOptions{TypeMeta: optionsMeta("CreateOptions"), DryRun: opts.DryRun, FieldManager: opts.FieldManager})
		isNew = true
	}
	if err != nil {
		return err
	}
	return c.sendHub(created(isNew), obj)
}

func (c *call) updateOptions() (*metav1.UpdateOptions, error) {
	opts := &metav1.UpdateOptions{}
	if err := metav1.Convert_url_Values_To_v1_UpdateOptions(ptr(c.values()), opts, nil); err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	opts.TypeMeta = optionsMeta("UpdateOptions")
	return opts, c.setWrite("UpdateOptions", opts.DryRun, opts.FieldManager, metav1validation.ValidateUpdateOptions(opts))
}
