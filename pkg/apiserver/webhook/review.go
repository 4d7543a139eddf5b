package webhook

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/uuid"
	upstream "k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/admission/plugin/cel"

	"github.com/sextant-k8s/sextant/pkg/apiserver/admission"
)

// callError is that a webhook could not be asked or answered nonsense; its failure policy decides what follows.
type callError struct{ err error }

func (e *callError) Error() string { return e.err.Error() }
func (e *callError) Unwrap() error { return e.err }

// ask posts the review of a request to a webhook and answers what it says.
func (c *Caller) ask(ctx context.Context, h *hook, a *upstream.VersionedAttributes, gvr schema.GroupVersionResource) (*admissionv1.AdmissionResponse, error) {
	version := ""
	for _, v := range h.versions {
		if slices.Contains([]string{"v1", "v1beta1"}, v) && version == "" {
			version = v
		}
	}
	if version == "" {
		return nil, &callError{fmt.Errorf("webhook does not accept known AdmissionReview versions (v1, v1beta1)")}
	}
	request := cel.CreateAdmissionRequest(a.Attributes, metav1.GroupVersionResource(gvr), metav1.GroupVersionKind(a.VersionedKind))
	request.UID = uuid.NewUUID()
	request.Object.Object, request.OldObject.Object = a.VersionedObject.Object(), a.VersionedOldObject.Object()
	review := &admissionv1.AdmissionReview{TypeMeta: metav1.TypeMeta{APIVersion: "admission.k8s.io/" + version, Kind: "AdmissionReview"}, Request: request}
	body, err := json.Marshal(review)
	if err != nil {
		return nil, &callError{err}
	}
	body, err = c.Post(ctx, h.target, body, time.Duration(h.timeout)*time.Second)
	if err != nil {
		return nil, &callError{fmt.Errorf("failed to call webhook: %w", err)}
	}
	answer := &admissionv1.AdmissionReview{}
	if err := json.Unmarshal(body, answer); err != nil {
		return nil, &callError{fmt.Errorf("failed to call webhook: %w", err)}
	}
	r := answer.Response
	switch {
	case r == nil:
		return nil, &callError{errors.New("received invalid webhook response: webhook response was absent")}
	case version == "v1" && r.UID != request.UID:
		return nil, &callError{fmt.Errorf("received invalid webhook response: expected response.uid=%q, got %q", request.UID, r.UID)}
	case version == "v1" && answer.GroupVersionKind() != review.GroupVersionKind():
		return nil, &callError{fmt.Errorf("received invalid webhook response: expected webhook response of %v, got %v", review.GroupVersionKind(), answer.GroupVersionKind())}
	case version == "v1" && len(r.Patch) > 0 && r.PatchType == nil:
		return nil, &callError{errors.New("received invalid webhook response: webhook returned response.patch but not response.patchType")}
	case r.PatchType != nil && *r.PatchType != admissionv1.PatchTypeJSONPatch:
		return nil, &callError{fmt.Errorf("received invalid webhook response: webhook returned invalid response.patchType of %q", *r.PatchType)}
	}
	return r, nil
}

// denied is a webhook's no as the client is told it.
func denied(h *hook, result *metav1.Status) error {
	by := fmt.Sprintf("admission webhook %q denied the request", h.name)
	if result == nil {
		result = &metav1.Status{}
	}
	if result.Code < http.StatusBadRequest {
		result.Code = http.StatusBadRequest
	}
	result.Status = metav1.StatusFailure
	switch {
	case result.Message != "":
		result.Message = by + ": " + result.Message
	case result.Reason != "":
		result.Message = by + ": " + string(result.Reason)
	default:
		result.Message = by + " without explanation"
	}
	return &apierrors.StatusError{ErrStatus: *result}
}

// failed is what follows if a webhook could not be asked: nothing if its policy is to ignore that.
func failed(h *hook, err error) error {
	var call *callError
	if !errors.As(err, &call) {
		return err
	}
	if h.ignore {
		return nil
	}
	return &unasked{apierrors.NewInternalError(fmt.Errorf("failed calling webhook %q: %w", h.name, err)), h.name}
}

// unasked is the failure of a webhook; its words may hold what the webhook answered.
type unasked struct {
	*apierrors.StatusError
	name string
}

func (u *unasked) Unwrap() error { return u.StatusError }

// ForLog is the failure without what the webhook answered.
func (u *unasked) ForLog() string { return fmt.Sprintf("failed calling webhook %q", u.name) }

// dry answers an error if a dry run must not reach the webhook.
func dry(h *hook, r *admission.Request) error {
	if !r.DryRun || h.sideEffects != nil && (*h.sideEffects == admissionregistrationv1.SideEffectClassNone || *h.sideEffects == admissionregistrationv1.SideEffectClassNoneOnDryRun) {
		return nil
	}
	return apierrors.NewBadRequest(fmt.Sprintf("admission webhook %q does not support dry run", h.name))
}

// tell passes a webhook's warnings and annotations on.
func tell(h *hook, r *admission.Request, resp *admissionv1.AdmissionResponse) {
	for _, w := range resp.Warnings {
		r.Warn(w)
	}
	if r.Annotate == nil {
		return
	}
	for k, v := range resp.AuditAnnotations {
		r.Annotate(h.name+"/"+k, v)
	}
}
