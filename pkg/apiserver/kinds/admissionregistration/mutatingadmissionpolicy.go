package admissionregistration

import (
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

// MutatingAdmissionPolicy is the row of mutatingadmissionpolicies.
func MutatingAdmissionPolicy() *kind.Def {
	return kind.Row(kind.Def{
		Kind: "MutatingAdmissionPolicy", Resource: "mutatingadmissionpolicies",
		Categories: []string{"api-extensions"},
		Generation: true,
	}, kind.In[admissionregistrationv1.MutatingAdmissionPolicy, admissionregistrationv1.MutatingAdmissionPolicyList](admissionregistrationv1.SchemeGroupVersion, nil))
}
