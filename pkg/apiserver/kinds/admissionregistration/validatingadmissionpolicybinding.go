package admissionregistration

import (
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

// ValidatingAdmissionPolicyBinding is the row of validatingadmissionpolicybindings.
func ValidatingAdmissionPolicyBinding() *kind.Def {
	return kind.Row(kind.Def{
		Kind: "ValidatingAdmissionPolicyBinding", Resource: "validatingadmissionpolicybindings",
		Categories: []string{"api-extensions"},
		Generation: true,
	}, kind.In[admissionregistrationv1.ValidatingAdmissionPolicyBinding, admissionregistrationv1.ValidatingAdmissionPolicyBindingList](admissionregistrationv1.SchemeGroupVersion, nil))
}
