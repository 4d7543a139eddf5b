package admissionregistration

import (
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/staging/api/defaults"
)

// ValidatingAdmissionPolicy is the row of validatingadmissionpolicies.
func ValidatingAdmissionPolicy() *kind.Def {
	return kind.Row(kind.Def{
		Kind: "ValidatingAdmissionPolicy", Resource: "validatingadmissionpolicies",
		Categories: []string{"api-extensions"},
		Generation: true, NeedVersionOnUpdate: true,
		Check:   kind.Ask(checkPolicy),
		Subs:    []kind.Sub{kind.Status},
		Columns: kind.Columns("Name Validations:integer ParamKind Age"),
		Row:     kind.Of(validatingPolicyRow),
	}, kind.In[admissionregistrationv1.ValidatingAdmissionPolicy, admissionregistrationv1.ValidatingAdmissionPolicyList](admissionregistrationv1.SchemeGroupVersion, defaults.ValidatingAdmissionPolicy))
}

func validatingPolicyRow(p *admissionregistrationv1.ValidatingAdmissionPolicy) []any {
	return []any{p.Name, int64(len(p.Spec.Validations)), paramKind(p.Spec.ParamKind), kind.Age(p.CreationTimestamp)}
}
