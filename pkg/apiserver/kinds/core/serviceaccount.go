package core

import (
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/staging/api/validate"
)

// ServiceAccount is the row of serviceaccounts; token issues tokens.
func ServiceAccount(token kind.ActionFunc) *kind.Def {
	return kind.Row(kind.Def{
		Kind: "ServiceAccount", Resource: "serviceaccounts", ShortNames: []string{"sa"}, Namespaced: true, ReturnDeleted: true,
		Check:   kind.Valid(validate.ServiceAccount, validate.ServiceAccountUpdate),
		Columns: kind.Columns("Name Age"),
		Row: kind.Of(func(s *corev1.ServiceAccount) []any {
			return []any{s.Name, kind.Age(s.CreationTimestamp)}
		}),
		Subs: []kind.Sub{{Name: "token", Action: &kind.Action{
			GV: authenticationv1.SchemeGroupVersion, Kind: "TokenRequest",
			New: func() runtime.Object { return &authenticationv1.TokenRequest{} },
			Do:  token,
		}}},
	}, kind.In[corev1.ServiceAccount, corev1.ServiceAccountList](corev1.SchemeGroupVersion, nil))
}
