// Package reviews answers questions about identity and permission: TokenReview, SelfSubjectReview and the access reviews.
//
// Each is a function of the request, the authenticator and the authorizer; nothing is stored or remembered.
package reviews

import (
	"context"
	"strings"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

// Reviewer answers reviews.
type Reviewer struct {
	// Token answers whose token it is.
	Token func(ctx context.Context, token string, audiences []string) (*authenticator.Response, bool, error)
	Authz authorizer.UnconditionalAuthorizer
	// Rules answers a user's rules in a namespace; nil where no authorizer can tell.
	Rules func(ctx context.Context, u user.Info, namespace string) ([]rbacv1.PolicyRule, error)
	// Audiences are the server's own.
	Audiences []string
}

// TokenReview tells whose token it is.
func (r *Reviewer) TokenReview(op *kind.Op, obj kind.Object) (kind.Object, error) {
	t := obj.(*authenticationv1.TokenReview)
	if t.Spec.Token == "" {
		return nil, apierrors.NewBadRequest("token is required for TokenReview in authentication")
	}
	audiences := t.Spec.Audiences
	if len(audiences) == 0 {
		audiences = r.Audiences
	}
	t.Status = authenticationv1.TokenReviewStatus{}
	resp, ok, err := r.Token(op.Ctx, t.Spec.Token, audiences)
	if err != nil {
		t.Status.Error = err.Error()
	}
	if !ok || err != nil {
		return t, nil
	}
	t.Status.Authenticated = true
	t.Status.User = userInfo(resp.User)
	t.Status.Audiences = resp.Audiences
	return t, nil
}

func userInfo(u user.Info) authenticationv1.UserInfo {
	out := authenticationv1.UserInfo{Username: u.GetName(), UID: u.GetUID(), Groups: u.GetGroups()}
	for k, v := range u.GetExtra() {
		if out.Extra == nil {
			out.Extra = map[string]authenticationv1.ExtraValue{}
		}
		out.Extra[k] = v
	}
	return out
}

// SelfSubjectReview tells who asks.
func (r *Reviewer) SelfSubjectReview(op *kind.Op, obj kind.Object) (kind.Object, error) {
	s := obj.(*authenticationv1.SelfSubjectReview)
	s.ManagedFields = nil // the answer is made anew
	s.CreationTimestamp = metav1.NewTime(op.Now.Truncate(1e9))
	s.Status.UserInfo = userInfo(op.User)
	return s, nil
}

// SubjectAccessReview tells whether somebody may do something.
func (r *Reviewer) SubjectAccessReview(op *kind.Op, obj kind.Object) (kind.Object, error) {
	s := obj.(*authorizationv1.SubjectAccessReview)
	errs := checkSpec(s.Spec.ResourceAttributes, s.Spec.NonResourceAttributes)
	if s.Spec.User == "" && len(s.Spec.Groups) == 0 {
		errs = append(errs, field.Invalid(field.NewPath("spec", "user"), s.Spec.User, "at least one of user or group must be specified"))
	}
	if err := invalid("SubjectAccessReview", errs); err != nil {
		return nil, err
	}
	s.Status = r.ask(op.Ctx, subject(&s.Spec), s.Spec.ResourceAttributes, s.Spec.NonResourceAttributes)
	return s, nil
}

// LocalSubjectAccessReview is SubjectAccessReview within one namespace.
func (r *Reviewer) LocalSubjectAccessReview(op *kind.Op, obj kind.Object) (kind.Object, error) {
	s := obj.(*authorizationv1.LocalSubjectAccessReview)
	errs := checkSpec(s.Spec.ResourceAttributes, s.Spec.NonResourceAttributes)
	if s.Spec.NonResourceAttributes != nil {
		errs = append(errs, field.Invalid(field.NewPath("spec", "nonResourceAttributes"), s.Spec.NonResourceAttributes, "disallowed on this kind of request"))
	}
	if err := invalid("LocalSubjectAccessReview", errs); err != nil {
		return nil, err
	}
	if s.Spec.ResourceAttributes.Namespace != op.Namespace {
		return nil, apierrors.NewBadRequest("spec.resourceAttributes.namespace must match namespace: " + op.Namespace)
	}
	s.Status = r.ask(op.Ctx, subject(&s.Spec), s.Spec.ResourceAttributes, nil)
	return s, nil
}

// SelfSubjectAccessReview tells whether who asks may do something.
func (r *Reviewer) SelfSubjectAccessReview(op *kind.Op, obj kind.Object) (kind.Object, error) {
	s := obj.(*authorizationv1.SelfSubjectAccessReview)
	if err := invalid("SelfSubjectAccessReview", checkSpec(s.Spec.ResourceAttributes, s.Spec.NonResourceAttributes)); err != nil {
		return nil, err
	}
	s.Status = r.ask(op.Ctx, op.User, s.Spec.ResourceAttributes, s.Spec.NonResourceAttributes)
	return s, nil
}

func invalid(kindName string, errs field.ErrorList) error {
	if len(errs) == 0 {
		return nil
	}
	return apierrors.NewInvalid(schema.GroupKind{Group: authorizationv1.GroupName, Kind: kindName}, "", errs)
}

func checkSpec(r *authorizationv1.ResourceAttributes, n *authorizationv1.NonResourceAttributes) field.ErrorList {
	switch {
	case r == nil && n == nil:
		return field.ErrorList{field.Invalid(field.NewPath("spec", "resourceAttributes"), r, "exactly one of nonResourceAttributes or resourceAttributes must be specified")}
	case r != nil && n != nil:
		return field.ErrorList{field.Invalid(field.NewPath("spec", "nonResourceAttributes"), n, "cannot be specified in combination with resourceAttributes")}
	}
	return nil
}

func subject(s *authorizationv1.SubjectAccessReviewSpec) user.Info {
	u := &user.DefaultInfo{Name: s.User, Groups: s.Groups, UID: s.UID, Extra: map[string][]string{}}
	for k, v := range s.Extra {
		u.Extra[strings.ToLower(k)] = v
	}
	return u
}

func (r *Reviewer) ask(ctx context.Context, u user.Info, ra *authorizationv1.ResourceAttributes, na *authorizationv1.NonResourceAttributes) authorizationv1.SubjectAccessReviewStatus {
	a := authorizer.AttributesRecord{User: u}
	if ra != nil {
		a.ResourceRequest = true
		a.Verb, a.Namespace, a.APIGroup, a.APIVersion = ra.Verb, ra.Namespace, ra.Group, ra.Version
		a.Resource, a.Subresource, a.Name = ra.Resource, ra.Subresource, ra.Name
		if a.APIVersion == "" {
			a.APIVersion = "*"
		}
		a.FieldSelectorRequirements, a.LabelSelectorRequirements = fieldsOf(ra.FieldSelector), labelsOf(ra.LabelSelector)
	} else {
		a.Verb, a.Path = na.Verb, na.Path
	}
	d, reason, err := r.Authz.Authorize(ctx, a)
	out := authorizationv1.SubjectAccessReviewStatus{
		Allowed: d == authorizer.DecisionAllow, Denied: d == authorizer.DecisionDeny, Reason: reason,
	}
	if err != nil {
		out.EvaluationError = err.Error()
	}
	return out
}

// fieldsOf are the requirements that authorizers are told of. One that cannot be said in a selector is left out: without
// it the question is about more objects, never fewer.
func fieldsOf(s *authorizationv1.FieldSelectorAttributes) (out fields.Requirements) {
	if s == nil {
		return nil
	}
	if s.RawSelector != "" {
		if f, err := fields.ParseSelector(s.RawSelector); err == nil {
			return f.Requirements()
		}
		return nil
	}
	for _, r := range s.Requirements {
		switch {
		case len(r.Values) != 1:
		case r.Operator == metav1.FieldSelectorOpIn:
			out = append(out, fields.Requirement{Operator: selection.Equals, Field: r.Key, Value: r.Values[0]})
		case r.Operator == metav1.FieldSelectorOpNotIn:
			out = append(out, fields.Requirement{Operator: selection.NotEquals, Field: r.Key, Value: r.Values[0]})
		}
	}
	return out
}

// labelsOf is fieldsOf for labels.
func labelsOf(s *authorizationv1.LabelSelectorAttributes) (out labels.Requirements) {
	if s == nil {
		return nil
	}
	if s.RawSelector != "" {
		if l, err := labels.Parse(s.RawSelector); err == nil {
			out, _ = l.Requirements()
		}
		return out
	}
	for _, r := range s.Requirements {
		if l, err := metav1.LabelSelectorAsSelector(&metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{r}}); err == nil {
			one, _ := l.Requirements()
			out = append(out, one...)
		}
	}
	return out
}

// SelfSubjectRulesReview lists what who asks may do in a namespace.
func (r *Reviewer) SelfSubjectRulesReview(op *kind.Op, obj kind.Object) (kind.Object, error) {
	s := obj.(*authorizationv1.SelfSubjectRulesReview)
	if s.Spec.Namespace == "" {
		return nil, apierrors.NewBadRequest("no namespace on request")
	}
	namespace := s.Spec.Namespace
	s.Spec, s.ManagedFields = authorizationv1.SelfSubjectRulesReviewSpec{}, nil
	s.Status = authorizationv1.SubjectRulesReviewStatus{ResourceRules: []authorizationv1.ResourceRule{}, NonResourceRules: []authorizationv1.NonResourceRule{}}
	if r.Rules == nil {
		s.Status.Incomplete = true
		s.Status.EvaluationError = "no authorizer of this server can list rules"
		return s, nil
	}
	rules, err := r.Rules(op.Ctx, op.User, namespace)
	if err != nil {
		s.Status.Incomplete, s.Status.EvaluationError = true, err.Error()
	}
	for _, g := range op.User.GetGroups() {
		if g == user.SystemPrivilegedGroup {
			rules = append(rules, rbacv1.PolicyRule{Verbs: []string{"*"}, APIGroups: []string{"*"}, Resources: []string{"*"}},
				rbacv1.PolicyRule{Verbs: []string{"*"}, NonResourceURLs: []string{"*"}})
		}
	}
	for _, rule := range rules {
		if len(rule.Resources) > 0 {
			s.Status.ResourceRules = append(s.Status.ResourceRules, authorizationv1.ResourceRule{
				Verbs: rule.Verbs, APIGroups: rule.APIGroups, Resources: rule.Resources, ResourceNames: rule.ResourceNames,
			})
		}
		if len(rule.NonResourceURLs) > 0 {
			s.Status.NonResourceRules = append(s.Status.NonResourceRules, authorizationv1.NonResourceRule{Verbs: rule.Verbs, NonResourceURLs: rule.NonResourceURLs})
		}
	}
	return s, nil
}
