package reviews

import (
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

// Answer fills in a review's status.
type Answer = func(op *kind.Op, obj kind.Object) (kind.Object, error)

// Answers are what answers each kind of review.
type Answers struct {
	TokenReview, SelfSubjectReview                                                                 Answer
	SubjectAccessReview, LocalSubjectAccessReview, SelfSubjectAccessReview, SelfSubjectRulesReview Answer
}

// All answers the rows of the reviews.
func All(a Answers) []*kind.Def {
	authn, authz := authenticationv1.SchemeGroupVersion, authorizationv1.SchemeGroupVersion
	return []*kind.Def{
		review("TokenReview", "tokenreviews", false, a.TokenReview, kind.In[authenticationv1.TokenReview, authenticationv1.TokenReview](authn, nil)),
		review("SelfSubjectReview", "selfsubjectreviews", false, a.SelfSubjectReview, kind.In[authenticationv1.SelfSubjectReview, authenticationv1.SelfSubjectReview](authn, nil)),
		review("SubjectAccessReview", "subjectaccessreviews", false, a.SubjectAccessReview, kind.In[authorizationv1.SubjectAccessReview, authorizationv1.SubjectAccessReview](authz, nil)),
		review("LocalSubjectAccessReview", "localsubjectaccessreviews", true, a.LocalSubjectAccessReview, kind.In[authorizationv1.LocalSubjectAccessReview, authorizationv1.LocalSubjectAccessReview](authz, nil)),
		review("SelfSubjectAccessReview", "selfsubjectaccessreviews", false, a.SelfSubjectAccessReview, kind.In[authorizationv1.SelfSubjectAccessReview, authorizationv1.SelfSubjectAccessReview](authz, nil)),
		review("SelfSubjectRulesReview", "selfsubjectrulesreviews", false, a.SelfSubjectRulesReview, kind.In[authorizationv1.SelfSubjectRulesReview, authorizationv1.SelfSubjectRulesReview](authz, nil)),
	}
}

func review(name, resource string, namespaced bool, answer Answer, v kind.Version) *kind.Def {
	return kind.Row(kind.Def{
		Kind: name, Resource: resource, Namespaced: namespaced, Verbs: []string{"create"},
		Virtual: &kind.Virtual{Create: answer},
	}, v)
}
