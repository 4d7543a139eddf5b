package engine

import (
	"fmt"
	"net/http"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sextant-k8s/sextant/pkg/apiserver/codec"
	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

// scaleGVK is the form in which everything scalable is shown.
var scaleGVK = autoscalingv1.SchemeGroupVersion.WithKind("Scale")

// scale reads or sets an object's replicas through autoscaling/v1 Scale.
func (e *Engine) scale(c *call, s *kind.Scale) error {
	switch c.info.Verb {
	case "get":
		if _, err := c.home().Fresh(c.ctx); err != nil {
			return err
		}
		i := c.res.Get(c.def.ItemKey(c.info.Namespace, c.info.Name))
		if i == nil {
			return apierrors.NewNotFound(c.gr(), c.info.Name)
		}
		obj, err := c.object(i)
		if err != nil {
			return err
		}
		return c.sendObject(http.StatusOK, scaleOf(s, obj), scaleGVK)
	case "update":
		opts, err := c.updateOptions()
		if err != nil {
			return err
		}
		body, err := c.body()
		if err != nil {
			return err
		}
		m, err := codec.BodyMedia(c.r)
		if err != nil {
			return err
		}
		sent := &autoscalingv1.Scale{}
		if _, err := codec.Decode(body, m, scaleGVK, sent, codec.Warn); err != nil {
			return err
		}
		return e.rescale(c, s, opts, func(*autoscalingv1.Scale) (*autoscalingv1.Scale, error) { return sent, nil })
	case "patch":
		return e.patchScale(c, s)
	}
	return methodNotSupported(c)
}

func (e *Engine) patchScale(c *call, s *kind.Scale) error {
	opts, err := c.updateOptions()
	if err != nil {
		return err
	}
	body, err := c.body()
	if err != nil {
		return err
	}
	t := types.PatchType(c.r.Header.Get("Content-Type"))
	v := &kind.Version{New: func() kind.Object { return &autoscalingv1.Scale{} }}
	switch t {
	case types.JSONPatchType, types.MergePatchType, types.StrategicMergePatchType:
	default:
		return codec.Unsupported("application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json")
	}
	return e.rescale(c, s, opts, func(now *autoscalingv1.Scale) (*autoscalingv1.Scale, error) {
		before, err := codec.JSONBody(now)
		if err != nil {
			return nil, err
		}
		after, err := patchJSON(t, codec.WithKind(before, scaleGVK), body, v)
		if err != nil {
			return nil, err
		}
		sent := &autoscalingv1.Scale{}
		_, err = codec.Decode(after, codec.JSON, scaleGVK, sent, codec.Warn)
		return sent, err
	})
}

// rescale writes the replicas that make asks for.
func (e *Engine) rescale(c *call, s *kind.Scale, opts *metav1.UpdateOptions, make func(now *autoscalingv1.Scale) (*autoscalingv1.Scale, error)) error {
	obj, err := e.modify(c, &ruleset{}, opts, func(old kind.Object) (kind.Object, error) {
		sent, err := make(scaleOf(s, old))
		if err != nil {
			return nil, err
		}
		if sent.Name != "" && sent.Name != c.info.Name {
			return nil, apierrors.NewBadRequest(fmt.Sprintf("the name of the object (%s) does not match the name on the URL (%s)", sent.Name, c.info.Name))
		}
		if sent.Spec.Replicas < 0 {
			return nil, apierrors.NewInvalid(scaleGVK.GroupKind(), c.info.Name, field.ErrorList{
				field.Invalid(field.NewPath("spec", "replicas"), sent.Spec.Replicas, "must be greater than or equal to 0"),
			})
		}
		obj := old.DeepCopyObject().(kind.Object)
		if sent.ResourceVersion != "" {
			obj.SetResourceVersion(sent.ResourceVersion)
		}
		if sent.UID != "" {
			obj.SetUID(sent.UID)
		}
		s.Write(obj, sent.Spec.Replicas)
		return obj, nil
	})
	if err != nil {
		return err
	}
	return c.sendObject(http.StatusOK, scaleOf(s, obj), scaleGVK)
}

func scaleOf(s *kind.Scale, obj kind.Object) *autoscalingv1.Scale {
	spec, status, selector := s.Read(obj)
	return &autoscalingv1.Scale{
		ObjectMeta: metav1.ObjectMeta{
			Name: obj.GetName(), Namespace: obj.GetNamespace(), UID: obj.GetUID(),
			ResourceVersion: obj.GetResourceVersion(), CreationTimestamp: obj.GetCreationTimestamp(),
		},
		Spec:   autoscalingv1.ScaleSpec{Replicas: spec},
		Status: autoscalingv1.ScaleStatus{Replicas: status, Selector: selector},
	}
}
