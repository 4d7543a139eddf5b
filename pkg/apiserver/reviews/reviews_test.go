package reviews

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

// words answers every question with what it was asked; "may" is allowed, "never" denied.
type words struct{}

func (words) Authorize(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
	f, _ := a.GetFieldSelector()
	l, _ := a.GetLabelSelector()
	reason := fmt.Sprint(a.GetUser().GetName(), a.GetUser().GetGroups(), a.GetUser().GetExtra(), " ", a.GetVerb(), " ", a.GetNamespace(), " ", a.GetAPIGroup(), "/", a.GetAPIVersion(), " ",
		a.GetResource(), "/", a.GetSubresource(), " ", a.GetName(), " ", a.GetPath(), f, l, a.IsResourceRequest())
	switch a.GetVerb() {
	case "may":
		return authorizer.DecisionAllow, reason, nil
	case "never":
		return authorizer.DecisionDeny, reason, nil
	case "fail":
		return authorizer.DecisionNoOpinion, reason, errors.New("trouble")
	}
	return authorizer.DecisionNoOpinion, reason, nil
}

func reviewer() *Reviewer {
	return &Reviewer{
		Audiences: []string{"api"}, Authz: words{},
		Token: func(_ context.Context, token string, audiences []string) (*authenticator.Response, bool, error) {
			switch token {
			case "good":
				return &authenticator.Response{User: &user.DefaultInfo{Name: "ann", UID: "7", Groups: []string{"dev"}, Extra: map[string][]string{"k": {"v"}}}, Audiences: audiences}, true, nil
			case "bad":
				return nil, false, errors.New("it is forged")
			}
			return nil, false, nil
		},
		Rules: func(_ context.Context, _ user.Info, ns string) ([]rbacv1.PolicyRule, error) {
			return []rbacv1.PolicyRule{{Verbs: []string{"get"}, Resources: []string{ns}}, {Verbs: []string{"get"}, NonResourceURLs: []string{"/x"}}}, errors.New("a role is missing")
		},
	}
}

func op(groups ...string) *kind.Op {
	return &kind.Op{Ctx: context.Background(), Namespace: "here", Now: time.Unix(100, 5), User: &user.DefaultInfo{Name: "bob", Groups: groups}}
}

func TestTokenReview(t *testing.T) {
	for token, want := range map[string]string{"good": "ann [api] ", "bad": " [] it is forged", "other": " [] "} {
		out, err := reviewer().TokenReview(op(), &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token}})
		if err != nil {
			t.Fatal(err)
		}
		s := out.(*authenticationv1.TokenReview).Status
		if got := fmt.Sprintf("%s %v %s", s.User.Username, s.Audiences, s.Error); got != want || s.Authenticated != (token == "good") {
			t.Errorf("%s: %q, authenticated %v", token, got, s.Authenticated)
		}
	}
	out, err := reviewer().TokenReview(op(), &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: "good", Audiences: []string{"a", "b"}}})
	if err != nil || !slices.Equal(out.(*authenticationv1.TokenReview).Status.Audiences, []string{"a", "b"}) {
		t.Errorf("the audiences asked for: %+v, %v", out, err)
	}
	if _, err := reviewer().TokenReview(op(), &authenticationv1.TokenReview{}); !apierrors.IsBadRequest(err) {
		t.Errorf("no token: %v", err)
	}
}

func TestSelfSubjectReview(t *testing.T) {
	out, err := reviewer().SelfSubjectReview(op("g"), &authenticationv1.SelfSubjectReview{})
	s := out.(*authenticationv1.SelfSubjectReview)
	if err != nil || s.Status.UserInfo.Username != "bob" || !slices.Equal(s.Status.UserInfo.Groups, []string{"g"}) || s.CreationTimestamp.Unix() != 100 {
		t.Errorf("%+v, %v", s, err)
	}
}

func TestSubjectAccessReview(t *testing.T) {
	resource := func(verb string) *authorizationv1.ResourceAttributes {
		return &authorizationv1.ResourceAttributes{Verb: verb, Namespace: "n", Group: "g", Resource: "r", Subresource: "s", Name: "x",
			FieldSelector: &authorizationv1.FieldSelectorAttributes{RawSelector: "a=b"}, LabelSelector: &authorizationv1.LabelSelectorAttributes{RawSelector: "c=d"}}
	}
	for verb, want := range map[string]string{"may": "true false ", "never": "false true ", "no": "false false ", "fail": "false false trouble"} {
		out, err := reviewer().SubjectAccessReview(op(), &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
			User: "ann", Groups: []string{"dev"}, Extra: map[string]authorizationv1.ExtraValue{"K": {"v"}}, ResourceAttributes: resource(verb),
		}})
		if err != nil {
			t.Fatal(err)
		}
		s := out.(*authorizationv1.SubjectAccessReview).Status
		if got := fmt.Sprintf("%v %v %s", s.Allowed, s.Denied, s.EvaluationError); got != want {
			t.Errorf("%s: %q", verb, got)
		}
		if !strings.HasPrefix(s.Reason, "ann[dev] map[k:[v]] "+verb+" n g/* r/s x ") || !strings.HasSuffix(s.Reason, "true") {
			t.Errorf("%s was asked as %q", verb, s.Reason)
		}
	}
	out, err := reviewer().SelfSubjectAccessReview(op("g"), &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{
		NonResourceAttributes: &authorizationv1.NonResourceAttributes{Verb: "may", Path: "/p"},
	}})
	if err != nil || !out.(*authorizationv1.SelfSubjectAccessReview).Status.Allowed || !strings.HasPrefix(out.(*authorizationv1.SelfSubjectAccessReview).Status.Reason, "bob[g] map[] may") {
		t.Errorf("%+v, %v", out, err)
	}
	local := func(ns string) error {
		_, err := reviewer().LocalSubjectAccessReview(op(), &authorizationv1.LocalSubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
			User: "ann", ResourceAttributes: &authorizationv1.ResourceAttributes{Verb: "may", Namespace: ns},
		}})
		return err
	}
	if err := local("here"); err != nil {
		t.Error(err)
	}
	if err := local("there"); !apierrors.IsBadRequest(err) {
		t.Errorf("another namespace: %v", err)
	}
}

// TestWrongQuestions refuses what cannot be answered, naming the field.
func TestWrongQuestions(t *testing.T) {
	both := authorizationv1.SubjectAccessReviewSpec{User: "u", ResourceAttributes: &authorizationv1.ResourceAttributes{}, NonResourceAttributes: &authorizationv1.NonResourceAttributes{}}
	for what, ask := range map[string]func() error{
		"spec.resourceAttributes: Invalid value": func() error {
			_, err := reviewer().SubjectAccessReview(op(), &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{User: "u"}})
			return err
		},
		"spec.nonResourceAttributes: Invalid value": func() error {
			_, err := reviewer().SubjectAccessReview(op(), &authorizationv1.SubjectAccessReview{Spec: both})
			return err
		},
		"spec.user: Invalid value": func() error {
			_, err := reviewer().SubjectAccessReview(op(), &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{ResourceAttributes: both.ResourceAttributes}})
			return err
		},
		"disallowed on this kind of request": func() error {
			_, err := reviewer().LocalSubjectAccessReview(op(), &authorizationv1.LocalSubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{User: "u", NonResourceAttributes: both.NonResourceAttributes}})
			return err
		},
	} {
		if err := ask(); !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestRulesReview(t *testing.T) {
	ask := func(r *Reviewer, ns string, groups ...string) (authorizationv1.SubjectRulesReviewStatus, error) {
		out, err := r.SelfSubjectRulesReview(op(groups...), &authorizationv1.SelfSubjectRulesReview{Spec: authorizationv1.SelfSubjectRulesReviewSpec{Namespace: ns}})
		if err != nil {
			return authorizationv1.SubjectRulesReviewStatus{}, err
		}
		return out.(*authorizationv1.SelfSubjectRulesReview).Status, nil
	}
	s, err := ask(reviewer(), "n")
	if err != nil || len(s.ResourceRules) != 1 || s.ResourceRules[0].Resources[0] != "n" || len(s.NonResourceRules) != 1 || !s.Incomplete || s.EvaluationError != "a role is missing" {
		t.Errorf("%+v, %v", s, err)
	}
	if s, err = ask(reviewer(), "n", user.SystemPrivilegedGroup); err != nil || len(s.ResourceRules) != 2 || s.ResourceRules[1].Verbs[0] != "*" {
		t.Errorf("a master: %+v, %v", s, err)
	}
	if _, err = ask(reviewer(), ""); !apierrors.IsBadRequest(err) {
		t.Errorf("no namespace: %v", err)
	}
	none := reviewer()
	none.Rules = nil
	if s, err = ask(none, "n"); err != nil || !s.Incomplete || s.ResourceRules == nil {
		t.Errorf("without rules: %+v, %v", s, err)
	}
}
