package core

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/staging/api/validate"
)

// Secret is the row of secrets.
func Secret() *kind.Def {
	return kind.Row(kind.Def{
		Kind: "Secret", Resource: "secrets", Namespaced: true,
		// What is written as text is kept as bytes; the text itself is never stored.
		Prepare: kind.On(func(_ *kind.Op, s, _ *corev1.Secret) {
			for k, v := range s.StringData {
				if s.Data == nil {
					s.Data = map[string][]byte{}
				}
				s.Data[k] = []byte(v)
			}
			s.StringData = nil
		}),
		Check:      kind.Valid(validate.Secret, validate.SecretUpdate),
		FieldNames: []string{"type"},
		Fields:     kind.Of(func(s *corev1.Secret) map[string]string { return map[string]string{"type": string(s.Type)} }),
		Columns:    kind.Describe(kind.Columns("Name Type Data Age"), "Type", corev1.Secret{}.SwaggerDoc()["type"], "Data", corev1.Secret{}.SwaggerDoc()["data"]),
		Row: kind.Of(func(s *corev1.Secret) []any {
			return []any{s.Name, string(s.Type), int64(len(s.Data)), kind.Age(s.CreationTimestamp)}
		}),
	}, kind.In[corev1.Secret, corev1.SecretList](corev1.SchemeGroupVersion, func(s *corev1.Secret) {
		if s.Type == "" {
			s.Type = corev1.SecretTypeOpaque
		}
	}))
}
