package plugins

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	psa "k8s.io/pod-security-admission/admission"
	"k8s.io/pod-security-admission/admission/api/load"
	psavalidation "k8s.io/pod-security-admission/admission/api/validation"
	psaapi "k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/metrics"
	"k8s.io/pod-security-admission/policy"

	"github.com/sextant-k8s/sextant/pkg/apiserver/admission"
	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

// PodSecurity holds pods to the level that their namespace's labels name.
func PodSecurity(c Configuration) (admission.Plugin, error) {
	config, err := load.LoadFromData(c["PodSecurity"])
	if err != nil {
		return admission.Plugin{}, fmt.Errorf("the configuration of PodSecurity: %w", err)
	}
	if errs := psavalidation.ValidatePodSecurityConfiguration(config); len(errs) > 0 {
		return admission.Plugin{}, fmt.Errorf("the configuration of PodSecurity: %w", errs.ToAggregate())
	}
	checks, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		return admission.Plugin{}, fmt.Errorf("loading PodSecurity's checks: %w", err)
	}
	base := psa.Admission{Configuration: config, Evaluator: checks, Metrics: uncounted{}, PodSpecExtractor: psa.DefaultPodSpecExtractor{}}
	if err := base.CompleteConfiguration(); err != nil {
		return admission.Plugin{}, fmt.Errorf("completing PodSecurity's defaults: %w", err)
	}
	extract := psa.DefaultPodSpecExtractor{}
	return admission.Plugin{Name: "PodSecurity", Validate: func(ctx context.Context, r *admission.Request) error {
		gr := r.Resource.GroupResource()
		if gr != namespaces && gr != pods && !extract.HasPodSpec(gr) || r.Verb != admission.Create && r.Verb != admission.Update {
			return nil
		}
		a := base
		a.NamespaceGetter, a.PodLister = lookup{r.Env}, lookup{r.Env}
		resp := a.Validate(ctx, &psaapi.AttributesRecord{
			Name: r.Name, Namespace: r.Namespace, Kind: r.Def.Storage.GV.WithKind(r.Def.Kind), Resource: r.Resource, Subresource: r.Sub,
			Operation: admissionv1.Operation(r.Verb), Object: r.Object, OldObject: r.Old, Username: userName(r),
		})
		for _, w := range resp.Warnings {
			r.Warn(w)
		}
		return denial(r, gr, resp)
	}}, nil
}

func userName(r *admission.Request) string {
	if r.User == nil {
		return ""
	}
	return r.User.GetName()
}

// denial makes an API error of a refusal.
func denial(r *admission.Request, gr schema.GroupResource, resp *admissionv1.AdmissionResponse) error {
	if resp.Allowed {
		return nil
	}
	if resp.Result != nil && resp.Result.Reason == metav1.StatusReasonInvalid {
		s := *resp.Result
		s.Status = metav1.StatusFailure
		return &apierrors.StatusError{ErrStatus: s}
	}
	err := apierrors.NewForbidden(gr, r.Name, errors.New("Not allowed by PodSecurity"))
	err.ErrStatus.Code = http.StatusForbidden
	if resp.Result != nil && resp.Result.Message != "" {
		err.ErrStatus.Message = resp.Result.Message // it already names the object
	}
	if resp.Result != nil && resp.Result.Details != nil {
		err.ErrStatus.Details.Causes = resp.Result.Details.Causes
	}
	return err
}

// uncounted records nothing: the server's own metrics count refusals.
type uncounted struct{}

func (uncounted) RecordEvaluation(metrics.Decision, psaapi.LevelVersion, metrics.Mode, psaapi.Attributes) {
}
func (uncounted) RecordExemption(psaapi.Attributes)   {}
func (uncounted) RecordError(bool, psaapi.Attributes) {}

// lookup finds namespaces and pods for the library.
type lookup struct{ env kind.Env }

// GetNamespace answers a namespace.
func (l lookup) GetNamespace(ctx context.Context, name string) (*corev1.Namespace, error) {
	obj, err := l.env.Get(ctx, namespaces, "", name)
	if apierrors.IsNotFound(err) {
		obj, err = l.env.GetFresh(ctx, namespaces, "", name)
	}
	if err != nil {
		return nil, err
	}
	return obj.(*corev1.Namespace), nil
}

// ListPods answers a namespace's pods.
func (l lookup) ListPods(ctx context.Context, namespace string) ([]*corev1.Pod, error) {
	objs, err := l.env.List(ctx, pods, namespace)
	if err != nil {
		return nil, err
	}
	out := make([]*corev1.Pod, len(objs))
	for i, o := range objs {
		out[i] = o.(*corev1.Pod)
	}
	return out, nil
}
