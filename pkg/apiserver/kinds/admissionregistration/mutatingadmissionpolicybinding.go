package admissionregistration

import (
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/staging/api/defaults"
)

// MutatingAdmissionPolicyBinding is the row of mutatingadmissionpolicybindings.
func MutatingAdmissionPolicyBinding() *kind.Def {
	return kind.Row(kind.Def{
		Kind: "MutatingAdmissionPolicyBinding", Resource: "mutatingadmissionpolicybindings",
		Categories: []string{"api-extensions"},
		Generation: true, NeedVersionOnUpdate: true,
		Check:   kind.Ask(checkMutatingBinding),
		Columns: kind.Columns("Name PolicyName ParamRef Age"),
		Row:     kind.Of(mutatingBindingRow),
	}, kind.In[admissionregistrationv1.MutatingAdmissionPolicyBinding, admissionregistrationv1.MutatingAdmissionPolicyBindingList](admissionregistrationv1.SchemeGroupVersion, defaults.MutatingAdmissionPolicyBinding))
}

func mutatingBindingRow(b *admissionregistrationv1.MutatingAdmissionPolicyBinding) []any {
	return []any{b.Name, b.Spec.PolicyName, paramRef(b.Spec.ParamRef), kind.Age(b.CreationTimestamp)}
}

func paramRef(r *admissionregistrationv1.ParamRef) string {
	switch {
	case r == nil, r.Name == "" && r.Selector == nil:
		return "<unset>"
	case r.Name == "":
		return r.Selector.String()
	case r.Namespace != "":
		return r.Namespace + "/" + r.Name
	}
	return r.Name
}
