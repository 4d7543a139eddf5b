package webhook

import (
	"context"
	"fmt"
	"sync"
	"time"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	admissionv1 "k8s.io/api/admission/v1"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"github.com/sextant-k8s/sextant/pkg/apiserver/admission"
	"github.com/sextant-k8s/sextant/pkg/apiserver/match"
	"github.com/sextant-k8s/sextant/pkg/apiserver/request"
)

// dispatcher asks the webhooks that a request concerns.
type dispatcher struct {
	caller *Caller
	authz  authorizer.UnconditionalAuthorizer
	configured
}

// Validating is the plugin that asks validating webhooks.
func Validating(caller *Caller, authz authorizer.UnconditionalAuthorizer) admission.Plugin {
	d := &dispatcher{caller: caller, authz: authz, configured: configured{
		gr: schema.GroupResource{Group: admissionregistrationv1.GroupName, Resource: "validatingwebhookconfigurations"}, read: readValidating,
	}}
	return admission.Plugin{Name: "ValidatingAdmissionWebhook", Validate: d.validate}
}

// Mutating is the plugin that asks mutating webhooks.
func Mutating(caller *Caller, authz authorizer.UnconditionalAuthorizer) admission.Plugin {
	d := &dispatcher{caller: caller, authz: authz, configured: configured{
		gr: schema.GroupResource{Group: admissionregistrationv1.GroupName, Resource: "mutatingwebhookconfigurations"}, read: readMutating,
	}}
	return admission.Plugin{Name: "MutatingAdmissionWebhook", Mutate: d.mutate}
}

// concerned tells whether a webhook is to be asked, and about the object in which place.
func (d *dispatcher) concerned(ctx context.Context, h *hook, v *match.View) (bool, schema.GroupVersionResource, schema.GroupVersionKind, error) {
	ok, gvr, gvk, err := h.criteria.Match(ctx, v)
	if !ok || err != nil || h.conditions == nil {
		return ok, gvr, gvk, err
	}
	a, err := v.At(gvk)
	if err != nil {
		return false, gvr, gvk, apierrors.NewInternalError(err)
	}
	m := h.conditions().Match(ctx, a, nil, d.authz)
	if m.Error != nil {
		return false, gvr, gvk, apierrors.NewForbidden(v.R.Resource.GroupResource(), v.R.Name, m.Error)
	}
	return m.Matches, gvr, gvk, nil
}

// validate asks all webhooks that are concerned at once; the first no in their order counts.
func (d *dispatcher) validate(ctx context.Context, r *admission.Request) error {
	hooks, err := d.all(ctx, r.Env)
	if err != nil || len(hooks) == 0 || match.Exempt(r) {
		return err
	}
	v := match.New(r)
	begun := time.Now()
	var wg sync.WaitGroup
	var asked []*hook
	answers := make([]*admissionv1.AdmissionResponse, len(hooks))
	errs := make([]error, len(hooks))
	for _, h := range hooks {
		ok, gvr, gvk, err := d.concerned(ctx, h, v)
		if err != nil {
			wg.Wait()
			return err
		}
		if !ok {
			continue
		}
		if err := dry(h, r); err != nil {
			wg.Wait()
			return err
		}
		a, err := v.At(gvk)
		if err != nil {
			wg.Wait()
			return apierrors.NewInternalError(err)
		}
		i := len(asked)
		asked = append(asked, h)
		wg.Go(func() { answers[i], errs[i] = d.ask(ctx, "validating", h, a, gvr) })
	}
	wg.Wait()
	if len(asked) > 0 {
		request.SetApart(ctx, time.Since(begun))
	}
	for i, h := range asked {
		if errs[i] != nil {
			if err := failed(h, errs[i]); err != nil {
				return err
			}
			continue
		}
		tell(h, r, answers[i])
		if !answers[i].Allowed {
			return denied(h, answers[i].Result)
		}
	}
	return nil
}

// memory is what the mutating webhooks know from the first round to the second.
type memory struct {
	asked  map[string]bool // may be asked again
	again  map[string]bool // are to be
	result runtime.Object  // the object after the last webhook
}

// changed makes every webhook asked so far one to be asked again.
func (m *memory) changed() {
	for id := range m.asked {
		m.again[id] = true
	}
	clear(m.asked)
}

// mutate asks the webhooks one after another, each about what the ones before left.
func (d *dispatcher) mutate(ctx context.Context, r *admission.Request) error {
	hooks, err := d.all(ctx, r.Env)
	if err != nil || len(hooks) == 0 || match.Exempt(r) {
		return err
	}
	const key = "MutatingAdmissionWebhook"
	m, _ := r.Memory[key].(*memory)
	if m == nil {
		m = &memory{asked: map[string]bool{}, again: map[string]bool{}}
		if r.Memory == nil {
			r.Memory = map[string]any{}
		}
		r.Memory[key] = m
	}
	if r.Again && m.result != nil && !equality.Semantic.DeepEqual(m.result, r.Object) {
		m.changed() // by plugins since
	}
	v := match.New(r)
	for i, h := range hooks {
		if r.Again && !m.again[h.id] {
			continue
		}
		ok, gvr, gvk, err := d.concerned(ctx, h, v)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		if err := dry(h, r); err != nil {
			return err
		}
		did, err := d.mutateBy(ctx, h, i, v, gvr, gvk)
		if err != nil {
			return err
		}
		if did {
			m.changed()
			r.Reinvoke = true
		}
		if h.again {
			m.asked[h.id] = true
		}
	}
	if r.Object != nil {
		m.result = r.Object.DeepCopyObject()
	}
	return nil
}

// mutateBy lets one webhook change the object and tells whether it did.
func (d *dispatcher) mutateBy(ctx context.Context, h *hook, i int, v *match.View, gvr schema.GroupVersionResource, gvk schema.GroupVersionKind) (bool, error) {
	a, err := v.At(gvk)
	if err != nil {
		return false, apierrors.NewInternalError(err)
	}
	begun := time.Now()
	resp, err := d.ask(ctx, "admit", h, a, gvr)
	request.SetApart(ctx, time.Since(begun))
	if err != nil {
		return false, failed(h, err)
	}
	tell(h, v.R, resp)
	if !resp.Allowed {
		return false, denied(h, resp.Result)
	}
	if len(resp.Patch) == 0 {
		return false, nil
	}
	patch, err := jsonpatch.DecodePatch(resp.Patch)
	if err != nil {
		return false, apierrors.NewInternalError(err)
	}
	if len(patch) == 0 {
		return false, nil
	}
	before, _ := a.VersionedObject.Object().(*unstructured.Unstructured)
	if before == nil {
		return false, apierrors.NewInternalError(fmt.Errorf("admission webhook %q attempted to modify the object, which is not supported for this operation", h.name))
	}
	text, err := before.MarshalJSON()
	if err != nil {
		return false, apierrors.NewInternalError(err)
	}
	if text, err = patch.Apply(text); err != nil {
		return false, apierrors.NewInternalError(err)
	}
	after := &unstructured.Unstructured{}
	if err := after.UnmarshalJSON(text); err != nil {
		return false, apierrors.NewInternalError(err)
	}
	if v.R.Annotate != nil {
		v.R.Annotate(fmt.Sprintf("mutation.webhook.admission.k8s.io/round_%d_index_%d", round(v.R), i),
			fmt.Sprintf(`{"configuration":%q,"webhook":%q,"mutated":true}`, h.configuration(), h.name))
	}
	if equality.Semantic.DeepEqual(before.Object, after.Object) {
		return false, nil
	}
	if err := v.Replace(gvk, after); err != nil {
		return false, apierrors.NewInternalError(err)
	}
	return true, nil
}

func round(r *admission.Request) int {
	if r.Again {
		return 1
	}
	return 0
}
