package admissionregistration

import (
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

// ValidatingAdmissionPolicy is the row of validatingadmissionpolicies.
func ValidatingAdmissionPolicy() *kind.Def {
	return kind.Row(kind.Def{
		Kind: "ValidatingAdmissionPolicy", Resource: "validatingadmissionpolicies",
		Categories: []string{"api-extensions"},
		Generation: true,
		Subs:       []kind.Sub{kind.Status},
	}, kind.In[admissionregistrationv1.ValidatingAdmissionPolicy, admissionregistrationv1.ValidatingAdmissionPolicyList](admissionregistrationv1.SchemeGroupVersion, nil))
}
