package admissionregistration

import (
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/staging/api/defaults"
)

// ValidatingAdmissionPolicyBinding is the row of validatingadmissionpolicybindings.
func ValidatingAdmissionPolicyBinding() *kind.Def {
	return kind.Row(kind.Def{
		Kind: "ValidatingAdmissionPolicyBinding", Resource: "validatingadmissionpolicybindings",
		Categories: []string{"api-extensions"},
		Generation: true, NeedVersionOnUpdate: true,
		Check:   kind.Ask(checkBinding),
		Columns: kind.Columns("Name PolicyName ParamRef Age"),
		Row:     kind.Of(validatingBindingRow),
	}, kind.In[admissionregistrationv1.ValidatingAdmissionPolicyBinding, admissionregistrationv1.ValidatingAdmissionPolicyBindingList](admissionregistrationv1.SchemeGroupVersion, defaults.ValidatingAdmissionPolicyBinding))
}

func validatingBindingRow(b *admissionregistrationv1.ValidatingAdmissionPolicyBinding) []any {
	return []any{b.Name, b.Spec.PolicyName, paramRef(b.Spec.ParamRef), kind.Age(b.CreationTimestamp)}
}
