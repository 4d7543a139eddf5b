package engine

import (
	"fmt"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"sigs.k8s.io/yaml"

	"github.com/sextant-k8s/sextant/pkg/apiserver/codec"
	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

// apply merges a configuration that its manager owns (server-side apply), creating the object if there is none.
func (e *Engine) apply(c *call, rs *ruleset, opts *metav1.PatchOptions, t types.PatchType, body []byte) (obj kind.Object, isNew bool, err error) {
	fields, err := codec.CheckFieldValidation(c.r, opts.FieldValidation)
	if err != nil {
		return nil, false, err
	}
	patch, err := c.configuration(t, body)
	if err != nil {
		return nil, false, err
	}
	m, err := c.fieldManager()
	if err != nil {
		return nil, false, err
	}
	force := opts.Force != nil && *opts.Force
	c.applied = true
	// What does not fit the schema, and a conflict, is told before what the text says twice.
	merge := func(old kind.Object, patch *unstructured.Unstructured) (kind.Object, error) {
		obj, err := m.apply(c, old, patch, opts.FieldManager, force)
		if err != nil {
			return nil, err
		}
		return obj, c.checkText(t, body, fields)
	}
	update := &metav1.UpdateOptions{TypeMeta: optionsMeta("UpdateOptions"), DryRun: opts.DryRun, FieldManager: opts.FieldManager}
	obj, err = e.modify(c, rs, update, func(old kind.Object) (kind.Object, error) { return merge(old, patch.DeepCopy()) })
	if !apierrors.IsNotFound(err) || rs.aspect != nil || patch.GetUID() != "" {
		return obj, false, err
	}
	if obj, err = merge(nil, patch); err != nil {
		return nil, false, err
	}
	obj.SetName(c.info.Name)
	obj, err = e.insert(c, obj, &metav1.CreateOptions{TypeMeta: optionsMeta("CreateOptions"), DryRun: opts.DryRun, FieldManager: opts.FieldManager})
	return obj, true, err
}

// configuration reads an applied configuration and checks that it is one for this object.
func (c *call) configuration(t types.PatchType, body []byte) (*unstructured.Unstructured, error) {
	patch := &unstructured.Unstructured{Object: map[string]any{}}
	if t == types.ApplyCBORPatchType {
		if err := codec.DecodeCBOR(body, &patch.Object); err != nil {
			return nil, apierrors.NewBadRequest(fmt.Sprintf("error decoding CBOR: %v", err))
		}
	} else if err := fromYAML(body, &patch.Object); err != nil {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("error decoding YAML: %v", err))
	}
	if got := patch.GroupVersionKind(); got != c.gvk() {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("invalid object type: %v", got))
	}
	if n := patch.GetName(); n != "" && n != c.info.Name {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("the name of the object (%s) does not match the name on the URL (%s)", n, c.info.Name))
	}
	if patch.GetManagedFields() != nil {
		return nil, apierrors.NewBadRequest("metadata.managedFields must be nil")
	}
	return patch, nil
}

// checkText finds what a configuration says twice. Unknown fields were refused by the schema as the configuration was merged,
// whatever the field validation, and those of custom kinds no less.
func (c *call) checkText(t types.PatchType, body []byte, fields string) error {
	if t == types.ApplyCBORPatchType || fields == codec.Ignore {
		return nil
	}
	err := yaml.UnmarshalStrict(body, &map[string]any{})
	if err != nil && fields == codec.Strict {
		return apierrors.NewBadRequest(fmt.Sprintf("error strict decoding YAML: %v", err))
	}
	if err == nil {
		return nil
	}
	found := err.Error()
	if _, each, ok := strings.Cut(found, "yaml: unmarshal errors:\n"); ok {
		found = each
	}
	for line := range strings.SplitSeq(found, "\n") { // a warning has no lines
		c.warn(strings.TrimSpace(line))
	}
	return nil
}

// fromYAML reads YAML into a map; whole numbers are int64.
func fromYAML(body []byte, into *map[string]any) error {
	text, err := yaml.YAMLToJSON(body)
	if err != nil {
		return err
	}
	return utiljson.Unmarshal(text, into)
}
