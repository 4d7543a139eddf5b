package engine

import (
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"strings"
	"sync"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/mergepatch"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sextant-k8s/sextant/pkg/apiserver/codec"
	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

// maxPatchOps bounds a JSON patch: each operation may copy the whole document.
const maxPatchOps = 10000

// maxPatchCopies bounds what a JSON patch copies, in bytes.
const maxPatchCopies = 3 << 20

// patchType is what a body is said to be. What the kind does not take is refused before anything else of the request is looked at;
// custom kinds name what they take.
func (c *call) patchType() (types.PatchType, error) {
	name, _, err := mime.ParseMediaType(c.r.Header.Get("Content-Type"))
	t := types.PatchType(name)
	if err == nil {
		switch t {
		case types.JSONPatchType, types.MergePatchType, types.ApplyYAMLPatchType, types.ApplyCBORPatchType:
			return t, nil
		case types.StrategicMergePatchType:
			if c.def.Loose == nil {
				return t, nil
			}
		}
	}
	if c.def.Loose != nil {
		return "", codec.Unsupported("application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml")
	}
	return "", apierrors.NewGenericServerResponse(http.StatusUnsupportedMediaType, "", schema.GroupResource{}, "", "415: Unsupported Media Type", 0, false)
}

// patch changes an object by a patch of one of the served types.
func (e *Engine) patch(c *call, rs *ruleset) error {
	t, err := c.patchType()
	if err != nil {
		return err
	}
	opts := &metav1.PatchOptions{}
	if err := metav1.Convert_url_Values_To_v1_PatchOptions(ptr(c.values()), opts, nil); err != nil {
		return apierrors.NewBadRequest(err.Error())
	}
	opts.TypeMeta = optionsMeta("PatchOptions")
	if err := c.setWrite("PatchOptions", opts.DryRun, opts.FieldManager, metav1validation.ValidatePatchOptions(opts, t)); err != nil {
		return err
	}
	body, err := c.body()
	if err != nil {
		return err
	}
	var obj kind.Object
	isNew := false
	switch t {
	case types.JSONPatchType, types.MergePatchType, types.StrategicMergePatchType:
		obj, err = e.patchStored(c, rs, opts, t, body)
	default:
		obj, isNew, err = e.apply(c, rs, opts, t, body)
	}
	if err != nil {
		return err
	}
	return c.sendHub(created(isNew), obj)
}

func (e *Engine) patchStored(c *call, rs *ruleset, opts *metav1.PatchOptions, t types.PatchType, body []byte) (kind.Object, error) {
	fields, err := codec.CheckFieldValidation(c.r, opts.FieldValidation)
	if err != nil {
		return nil, err
	}
	if t != types.JSONPatchType {
		if body, err = compactPatch(body); err != nil {
			return nil, err
		}
	}
	part, few := touchedBy(t, body)
	few = few && c.def.Loose == nil
	update := &metav1.UpdateOptions{TypeMeta: optionsMeta("UpdateOptions"), DryRun: opts.DryRun, FieldManager: opts.FieldManager}
	return e.modify(c, rs, update, func(old kind.Object) (kind.Object, error) {
		asked, err := c.ver.Of(old)
		if err != nil {
			return nil, err
		}
		if few {
			if obj, warnings, ok := c.patchPart(t, &part, asked, body, fields); ok {
				return c.patched(obj, warnings)
			}
		}
		obj, warnings, err := c.patchWhole(t, asked, body, fields)
		if err != nil {
			return nil, err
		}
		return c.patched(obj, warnings)
	})
}

// patchWhole patches an object of the version asked for. Every refusal comes from here.
func (c *call) patchWhole(t types.PatchType, asked kind.Object, patch []byte, fields string) (kind.Object, []string, error) {
	before, err := codec.JSONBody(asked)
	if err != nil {
		return nil, nil, err
	}
	after, err := patchJSON(t, codec.WithKind(before, c.gvk()), patch, c.ver)
	if err != nil {
		return nil, nil, err
	}
	obj, warnings, err := codec.DecodeAs(c.def, c.ver, after, codec.JSON, fields)
	if err != nil {
		// The patch was fine, what it made is not.
		return nil, nil, apierrors.NewInvalid(schema.GroupKind{}, "", field.ErrorList{field.Invalid(field.NewPath("patch"), string(after), codec.Reason(err))})
	}
	return obj, warnings, nil
}

// patchPart patches what a patch touches of an object, and takes over the rest as it is. It answers false for whatever is
// out of the ordinary.
func (c *call) patchPart(t types.PatchType, part *touched, asked kind.Object, patch []byte, fields string) (kind.Object, []string, bool) {
	seen := c.ver.New()
	if !part.move(asked, seen, false) {
		return nil, nil, false
	}
	obj, warnings, err := c.patchWhole(t, seen, patch, fields)
	if err != nil || !part.move(asked.DeepCopyObject().(kind.Object), obj, true) {
		return nil, nil, false
	}
	return obj, warnings, true
}

func (c *call) patched(obj kind.Object, warnings []string) (kind.Object, error) {
	for _, w := range warnings {
		c.warn(w)
	}
	return c.toHub(obj)
}

// compactPatch checks that a merge patch is an object; it may come as YAML's subset JSON only.
func compactPatch(body []byte) ([]byte, error) {
	var members map[string]json.RawMessage
	if json.Unmarshal(body, &members) == nil {
		return body, nil
	}
	var m map[string]any // upstream's words name its type
	if err := json.Unmarshal(body, &m); err != nil {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("error decoding patch: %v", err))
	}
	return body, nil
}

// boundCopies bounds what the copies of one JSON patch may add up to: each may double the document.
var boundCopies = sync.OnceFunc(func() { jsonpatch.AccumulatedCopySizeLimit = maxPatchCopies })

func patchJSON(t types.PatchType, before, body []byte, v *kind.Version) ([]byte, error) {
	switch t {
	case types.JSONPatchType:
		p, err := jsonpatch.DecodePatch(body)
		if err != nil {
			// Clients know the type by upstream's name.
			return nil, apierrors.NewBadRequest("error decoding patch: " + strings.Replace(err.Error(), "jsonpatch.Patch", "[]handlers.jsonPatchOp", 1))
		}
		if len(p) > maxPatchOps {
			return nil, apierrors.NewRequestEntityTooLargeError(fmt.Sprintf("The allowed maximum operations in a JSON patch is %d, got %d", maxPatchOps, len(p)))
		}
		for _, op := range p {
			// The library reads a value that is not there when the whole document is compared.
			if path, err := op.Path(); err == nil && path == "" && op.Kind() == "test" && op["value"] == nil {
				return nil, unprocessable(fmt.Errorf("testing value %s failed: %w", path, jsonpatch.ErrTestFailed))
			}
		}
		after, err := p.Apply(before)
		return after, unprocessable(err)
	case types.MergePatchType:
		after, err := jsonpatch.MergePatch(before, body)
		return after, unprocessable(err)
	}
	after, err := strategicpatch.StrategicMergePatch(before, body, v.New())
	switch {
	case errors.Is(err, mergepatch.ErrBadJSONDoc), errors.Is(err, mergepatch.ErrBadPatchFormatForPrimitiveList),
		errors.Is(err, mergepatch.ErrBadPatchFormatForRetainKeys), errors.Is(err, mergepatch.ErrBadPatchFormatForSetElementOrderList),
		errors.Is(err, mergepatch.ErrUnsupportedStrategicMergePatchFormat):
		return nil, apierrors.NewBadRequest(err.Error())
	case errors.Is(err, mergepatch.ErrNoListOfLists), errors.Is(err, mergepatch.ErrBadPatchFormatForPrimitiveList):
		return nil, unprocessable(err)
	case err != nil:
		return nil, wrong{err}
	}
	return after, nil
}

// unprocessable is the answer to a patch that is well formed and does not fit the object.
func unprocessable(err error) error {
	if err == nil {
		return nil
	}
	return apierrors.NewGenericServerResponse(http.StatusUnprocessableEntity, "", schema.GroupResource{}, "", err.Error(), 0, false)
}
