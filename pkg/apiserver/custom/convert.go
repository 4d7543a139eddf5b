package custom

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/uuid"

	"github.com/sextant-k8s/sextant/pkg/apiserver/webhook"
)

// conversionTime is how long a conversion webhook may take.
const conversionTime = 30 * time.Second

// converter turns objects of one definition's versions into each other.
type converter struct {
	crd    *apiextensionsv1.CustomResourceDefinition
	caller *webhook.Caller
}

// byHook tells that a webhook converts, not a mere change of apiVersion.
func (c *converter) byHook() bool {
	return c.crd.Spec.Conversion != nil && c.crd.Spec.Conversion.Strategy == apiextensionsv1.WebhookConverter
}

// convert answers objs in version to; those that are it already are answered as they are. objs are not changed.
func (c *converter) convert(objs []*Object, to schema.GroupVersion) ([]*Object, error) {
	out := make([]*Object, len(objs))
	var send []int
	for i, o := range objs {
		out[i] = o
		switch {
		case o.APIVersion == to.String():
		case c.byHook():
			send = append(send, i)
		default:
			out[i] = o.DeepCopyObject().(*Object)
			out[i].APIVersion = to.String()
		}
	}
	if len(send) == 0 {
		return out, nil
	}
	asked := make([]*Object, len(send))
	for n, i := range send {
		asked[n] = objs[i]
	}
	got, err := c.ask(asked, to)
	if err != nil {
		return nil, fmt.Errorf("conversion webhook for %v failed: %w", objs[send[0]].GroupVersionKind(), err)
	}
	for n, i := range send {
		out[i] = got[n]
	}
	return out, nil
}

// ask lets the webhook convert.
func (c *converter) ask(objs []*Object, to schema.GroupVersion) ([]*Object, error) {
	uid := uuid.NewUUID()
	review := &apiextensionsv1.ConversionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: "apiextensions.k8s.io/v1", Kind: "ConversionReview"},
		Request:  &apiextensionsv1.ConversionRequest{UID: uid, DesiredAPIVersion: to.String()},
	}
	for _, o := range objs {
		raw, err := json.Marshal(o)
		if err != nil {
			return nil, err
		}
		review.Request.Objects = append(review.Request.Objects, runtime.RawExtension{Raw: raw})
	}
	body, err := json.Marshal(review)
	if err != nil {
		return nil, err
	}
	// A request's own end must not leave a half-converted list: the time limit is the conversion's.
	body, err = c.caller.Post(context.Background(), target(c.crd.Spec.Conversion.Webhook.ClientConfig), body, conversionTime)
	if err != nil {
		return nil, err
	}
	answer := &apiextensionsv1.ConversionReview{}
	if err := json.Unmarshal(body, answer); err != nil {
		return nil, err
	}
	r := answer.Response
	switch {
	case answer.Kind != "ConversionReview" || answer.APIVersion != review.APIVersion:
		return nil, fmt.Errorf("expected webhook response of %s, got %s", review.GroupVersionKind(), answer.GroupVersionKind())
	case r == nil:
		return nil, errors.New("no response provided")
	case r.UID != uid:
		return nil, fmt.Errorf("expected response.uid %q, got %q", uid, r.UID)
	case r.Result.Status != metav1.StatusSuccess:
		if r.Result.Message == "" {
			return nil, fmt.Errorf("response.result.status was %q, not 'Success'", r.Result.Status)
		}
		return nil, errors.New(r.Result.Message)
	case len(r.ConvertedObjects) != len(objs):
		return nil, fmt.Errorf("webhook returned %d objects, expected %d", len(r.ConvertedObjects), len(objs))
	}
	out := make([]*Object, len(objs))
	for i, raw := range r.ConvertedObjects {
		o := &Object{}
		if err := json.Unmarshal(raw.Raw, o); err != nil {
			return nil, fmt.Errorf("invalid converted object at index %d: %w", i, err)
		}
		if err := accept(o, objs[i], to); err != nil {
			return nil, fmt.Errorf("invalid converted object at index %d: %w", i, err)
		}
		out[i] = o
	}
	return out, nil
}

// accept checks that a converted object is what it was, and lets it change labels and annotations only.
func accept(o, was *Object, to schema.GroupVersion) error {
	switch {
	case o.APIVersion != to.String():
		return fmt.Errorf("invalid groupVersion (%v)", o.APIVersion)
	case o.Kind != was.Kind:
		return fmt.Errorf("invalid kind (%v)", o.Kind)
	case o.Name != was.Name:
		return errors.New("must have the same name")
	case o.Namespace != was.Namespace:
		return errors.New("must have the same namespace")
	case o.UID != was.UID:
		return errors.New("must have the same UID")
	}
	labels, annotations := o.Labels, o.Annotations
	o.ObjectMeta = metav1.ObjectMeta{}
	was.DeepCopyInto(&o.ObjectMeta)
	if !equality.Semantic.DeepEqual(labels, was.Labels) {
		o.Labels = labels
	}
	if !equality.Semantic.DeepEqual(annotations, was.Annotations) {
		o.Annotations = annotations
	}
	return nil
}

func target(c *apiextensionsv1.WebhookClientConfig) webhook.Target {
	t := webhook.Target{CABundle: c.CABundle}
	if c.URL != nil {
		t.URL = *c.URL
		return t
	}
	t.Namespace, t.Name, t.Port = c.Service.Namespace, c.Service.Name, 443
	if c.Service.Port != nil {
		t.Port = *c.Service.Port
	}
	if c.Service.Path != nil {
		t.SubPath = *c.Service.Path
	}
	return t
}
