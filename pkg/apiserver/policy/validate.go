package policy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/cel-go/common/types"
	v1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	upstream "k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/admission/plugin/cel"
	"k8s.io/apiserver/pkg/admission/plugin/webhook/matchconditions"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	apiservercel "k8s.io/apiserver/pkg/cel"
	"k8s.io/apiserver/pkg/cel/environment"

	"github.com/sextant-k8s/sextant/pkg/apiserver/admission"
	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/pkg/apiserver/match"
)

// rules are a validating policy's expressions.
type rules struct {
	spec        *v1.ValidatingAdmissionPolicySpec
	conditions  matchconditions.Matcher // nil if there are none
	validations cel.ConditionEvaluator
	messages    cel.ConditionEvaluator
	annotations cel.ConditionEvaluator
}

func compileRules(p *v1.ValidatingAdmissionPolicy) (*rules, error) {
	c, err := match.Composed()
	if err != nil {
		return nil, fmt.Errorf("failed to initialize CEL compiler: %w", err)
	}
	s := &p.Spec
	full := cel.OptionalVariableDeclarations{HasParams: s.ParamKind != nil, HasAuthorizer: true}
	text := cel.OptionalVariableDeclarations{HasParams: s.ParamKind != nil}
	variables(c, s.Variables, full)
	r := &rules{spec: s, conditions: conditions(c, s.MatchConditions, full, s.FailurePolicy, p.Name)}
	var bools, messages, annotations []cel.ExpressionAccessor
	for i := range s.Validations {
		bools = append(bools, &match.Expression{Text: s.Validations[i].Expression, Types: match.Bool})
		var m cel.ExpressionAccessor // nil where there is no expression: results stay in step
		if e := s.Validations[i].MessageExpression; e != "" {
			m = &match.Expression{Text: e, Types: match.Text}
		}
		messages = append(messages, m)
	}
	for _, a := range s.AuditAnnotations {
		annotations = append(annotations, &match.Expression{Name: a.Key, Text: a.ValueExpression, Types: match.TextOrNull})
	}
	r.validations = c.CompileCondition(bools, full, environment.StoredExpressions)
	r.messages = c.CompileCondition(messages, text, environment.StoredExpressions)
	r.annotations = c.CompileCondition(annotations, text, environment.StoredExpressions)
	return r, nil
}

func variables(c *cel.CompositedCompiler, list []v1.Variable, decl cel.OptionalVariableDeclarations) {
	named := make([]cel.NamedExpressionAccessor, len(list))
	for i, v := range list {
		named[i] = &match.Expression{Name: v.Name, Text: v.Expression, Types: match.AnythingType}
	}
	c.CompileAndStoreVariables(named, decl, environment.StoredExpressions)
}

func conditions(c *cel.CompositedCompiler, list []v1.MatchCondition, decl cel.OptionalVariableDeclarations, f *v1.FailurePolicyType, name string) matchconditions.Matcher {
	if len(list) == 0 {
		return nil
	}
	return matchconditions.NewMatcher(c.CompileCondition(match.ConditionsOf(list), decl, environment.StoredExpressions), f, "policy", "validate", name)
}

// validator is the plugin's state.
type validator struct {
	Config
	catalog[*rules]
}

// Validating is the plugin of ValidatingAdmissionPolicies.
func Validating(c Config) admission.Plugin {
	gr := func(r string) schema.GroupResource { return schema.GroupResource{Group: v1.GroupName, Resource: r} }
	v := &validator{Config: c, catalog: catalog[*rules]{
		policies: gr("validatingadmissionpolicies"), bindings: gr("validatingadmissionpolicybindings"),
		readPolicy: func(o kind.Object) (*policy[*rules], error) {
			p := o.(*v1.ValidatingAdmissionPolicy)
			return newPolicy(p.Name, p.Spec.ParamKind, p.Spec.FailurePolicy, p.Spec.MatchConstraints, func() (*rules, error) { return compileRules(p) })
		},
		readBinding: func(o kind.Object) (*binding, error) {
			b := o.(*v1.ValidatingAdmissionPolicyBinding)
			out, err := newBinding(b.Name, b.Spec.PolicyName, b.Spec.ParamRef, b.Spec.MatchResources)
			if out != nil {
				out.actions = b.Spec.ValidationActions
			}
			return out, err
		},
	}}
	return admission.Plugin{Name: "ValidatingAdmissionPolicy", Validate: v.validate}
}

// verdict collects what the policies say of one request.
type verdict struct {
	r        *admission.Request
	denied   error // the first
	failures []failure
	notes    map[string][]string
}

// failure is what the audit annotation tells of a validation that failed.
type failure struct {
	Message           string                `json:"message"`
	Policy            string                `json:"policy"`
	Binding           string                `json:"binding"`
	ExpressionIndex   int                   `json:"expressionIndex"`
	ValidationActions []v1.ValidationAction `json:"validationActions"`
}

func (w *verdict) deny(policy string, b *binding, message string, reason metav1.StatusReason) {
	if w.denied != nil {
		return
	}
	text := fmt.Sprintf("ValidatingAdmissionPolicy '%s' denied request: %s", policy, message)
	if b != nil {
		text = fmt.Sprintf("ValidatingAdmissionPolicy '%s' with binding '%s' denied request: %s", policy, b.name, message)
	}
	w.denied = refusal(w.r, text, reason)
}

// fault is that a policy cannot be evaluated at all.
func (w *verdict) fault(p *policy[*rules], b *binding, err error) {
	if p.ignore {
		return
	}
	what := "policy"
	if b != nil {
		what = "binding"
	}
	w.deny(p.name, b, fmt.Sprintf("failed to configure %s: %v", what, err), "")
}

func (v *validator) validate(ctx context.Context, r *admission.Request) error {
	list, err := v.all(ctx, r.Env)
	if err != nil || len(list) == 0 || match.Exempt(r) {
		return err
	}
	view := match.New(r)
	w := &verdict{r: r, notes: map[string][]string{}}
	for _, p := range list {
		ok, gvr, gvk, err := p.criteria.Match(ctx, view)
		if err != nil {
			w.fault(p, nil, err)
			continue
		}
		if !ok {
			continue
		}
		for _, b := range p.bindings {
			if err := v.bound(ctx, w, view, p, b, gvr, gvk); err != nil {
				return err
			}
		}
	}
	w.annotate()
	return w.denied
}

// bound evaluates a policy under one of its bindings. Its error is that the request cannot be shown.
func (v *validator) bound(ctx context.Context, w *verdict, view *match.View, p *policy[*rules], b *binding, gvr schema.GroupVersionResource, gvk schema.GroupVersionKind) error {
	if ok, err := b.matches(ctx, view); err != nil || !ok {
		if err != nil {
			w.fault(p, b, err)
		}
		return nil
	}
	params, err := v.params(ctx, w.r, p.paramKind, b.ref)
	if err != nil {
		w.fault(p, b, err)
		return nil
	}
	if len(params) == 0 {
		return nil
	}
	shown, err := view.At(gvk)
	if err != nil {
		w.fault(p, b, err)
		return nil
	}
	ns, err := view.Namespace(ctx)
	if err != nil {
		return err
	}
	compiled, err := p.compiled()
	if err != nil {
		w.fault(p, nil, err)
		return nil
	}
	for _, param := range params {
		v.evaluate(ctx, w, &evaluation{p, b, compiled, shown, gvr, param, ns})
	}
	return nil
}

// evaluation is one policy under one binding with one parameter.
type evaluation struct {
	policy  *policy[*rules]
	binding *binding
	rules   *rules
	shown   *upstream.VersionedAttributes
	gvr     schema.GroupVersionResource
	param   runtime.Object
	ns      *corev1.Namespace
}

func (v *validator) evaluate(ctx context.Context, w *verdict, e *evaluation) {
	begun := time.Now()
	settled := false
	broken := func(i int, err error) {
		settled = true
		if e.policy.ignore {
			validated(e, "allow", err, time.Since(begun))
			return
		}
		w.say(e, i, err.Error(), "", err, begun)
	}
	defer func() {
		if !settled {
			validated(e, "allow", nil, time.Since(begun))
		}
	}()
	if m := e.rules.conditions; m != nil {
		got := m.Match(ctx, e.shown, e.param, v.Authz)
		if got.Error != nil {
			broken(0, got.Error)
			return
		}
		if !got.Matches {
			settled = true // nothing was validated
			return
		}
	}
	request := cel.CreateAdmissionRequest(e.shown.Attributes, metav1.GroupVersionResource(e.gvr), metav1.GroupVersionKind(e.shown.VersionedKind))
	ns := cel.CreateNamespaceObject(e.ns)
	results, left, err := e.rules.validations.ForInput(ctx, e.shown, request, cel.OptionalVariableBindings{VersionedParams: e.param, Authorizer: v.Authz}, ns, celconfig.RuntimeCELCostBudget)
	if err != nil {
		broken(0, err)
		return
	}
	plain := cel.OptionalVariableBindings{VersionedParams: e.param}
	messages, _, messageErr := e.rules.messages.ForInput(ctx, e.shown, request, plain, ns, left)
	for i, got := range results {
		switch {
		case got.Error != nil:
			broken(i, got.Error)
		case errors.Is(messageErr, apiservercel.ErrInternal) || errors.Is(messageErr, apiservercel.ErrOutOfBudget):
			broken(i, fmt.Errorf("failed messageExpression: %w", messageErr))
		case got.EvalResult != types.True:
			rule := &e.rules.spec.Validations[i]
			reason := metav1.StatusReasonInvalid
			if rule.Reason != nil {
				reason = *rule.Reason
			}
			settled = true
			w.say(e, i, message(rule, i, messages), reason, nil, begun)
		}
	}
	notes, _, err := e.rules.annotations.ForInput(ctx, e.shown, request, plain, e.ns, celconfig.RuntimeCELCostBudget)
	if err != nil {
		broken(0, err)
		return
	}
	for i, got := range notes {
		if got.Error != nil {
			broken(0, got.Error)
			continue
		}
		text, _ := got.EvalResult.Value().(string)
		if text = strings.TrimSpace(text); text != "" {
			key := e.policy.name + "/" + e.rules.spec.AuditAnnotations[i].Key
			if !slices.Contains(w.notes[key], text) {
				w.notes[key] = append(w.notes[key], text)
			}
		}
	}
}

// message is what a validation says that failed: what its expression makes, else its message, else the expression.
func message(rule *v1.Validation, i int, made []cel.EvaluationResult) string {
	if i < len(made) && made[i].Error == nil && made[i].EvalResult != nil {
		if text, ok := made[i].EvalResult.Value().(string); ok {
			text = strings.TrimSpace(text)
			if text != "" && len(text) <= celconfig.MaxEvaluatedMessageExpressionSizeBytes && !strings.Contains(text, "\n") {
				return text
			}
		}
	}
	if text := strings.TrimSpace(rule.Message); text != "" {
		return text
	}
	return "failed expression: " + strings.TrimSpace(rule.Expression)
}

// say does what the binding wants done about a failed validation; fault is why it could not be evaluated.
func (w *verdict) say(e *evaluation, i int, message string, reason metav1.StatusReason, fault error, begun time.Time) {
	for _, a := range e.binding.actions {
		validated(e, strings.ToLower(string(a)), fault, time.Since(begun))
		switch a {
		case v1.Deny:
			w.deny(e.policy.name, e.binding, message, reason)
		case v1.Audit:
			w.failures = append(w.failures, failure{message, e.policy.name, e.binding.name, i, e.binding.actions})
		case v1.Warn:
			w.r.Warn(fmt.Sprintf("Validation failed for ValidatingAdmissionPolicy '%s' with binding '%s': %s", e.policy.name, e.binding.name, message))
		}
	}
}

// What the audit event is told is bounded.
const (
	mostFailures = 50
	mostNote     = 10 * 1024
)

func (w *verdict) annotate() {
	if w.r.Annotate == nil {
		return
	}
	if n := len(w.failures); n > 0 {
		if b, err := json.Marshal(w.failures[:min(n, mostFailures)]); err == nil {
			w.r.Annotate("validation.policy.admission.k8s.io/validation_failure", string(b))
		}
	}
	for k, texts := range w.notes {
		text := strings.Join(texts, ", ")
		w.r.Annotate(k, text[:min(len(text), mostNote)])
	}
}
