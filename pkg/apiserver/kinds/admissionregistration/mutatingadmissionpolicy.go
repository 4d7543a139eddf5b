package admissionregistration

import (
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/staging/api/defaults"
)

// MutatingAdmissionPolicy is the row of mutatingadmissionpolicies.
func MutatingAdmissionPolicy() *kind.Def {
	return kind.Row(kind.Def{
		Kind: "MutatingAdmissionPolicy", Resource: "mutatingadmissionpolicies",
		Categories: []string{"api-extensions"},
		Generation: true, NeedVersionOnUpdate: true,
		Check:   kind.Ask(checkMutatingPolicy),
		Columns: kind.Columns("Name Mutations:integer ParamKind Age"),
		Row:     kind.Of(mutatingPolicyRow),
	}, kind.In[admissionregistrationv1.MutatingAdmissionPolicy, admissionregistrationv1.MutatingAdmissionPolicyList](admissionregistrationv1.SchemeGroupVersion, defaults.MutatingAdmissionPolicy))
}

func mutatingPolicyRow(p *admissionregistrationv1.MutatingAdmissionPolicy) []any {
	return []any{p.Name, int64(len(p.Spec.Mutations)), paramKind(p.Spec.ParamKind), kind.Age(p.CreationTimestamp)}
}

func paramKind(k *admissionregistrationv1.ParamKind) string {
	if k == nil {
		return "<unset>"
	}
	return k.APIVersion + "/" + k.Kind
}
