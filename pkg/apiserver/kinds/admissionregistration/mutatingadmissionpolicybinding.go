package admissionregistration

import (
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

// MutatingAdmissionPolicyBinding is the row of mutatingadmissionpolicybindings.
func MutatingAdmissionPolicyBinding() *kind.Def {
	return kind.Row(kind.Def{
		Kind: "MutatingAdmissionPolicyBinding", Resource: "mutatingadmissionpolicybindings",
		Categories: []string{"api-extensions"},
		Generation: true,
	}, kind.In[admissionregistrationv1.MutatingAdmissionPolicyBinding, admissionregistrationv1.MutatingAdmissionPolicyBindingList](admissionregistrationv1.SchemeGroupVersion, nil))
}
