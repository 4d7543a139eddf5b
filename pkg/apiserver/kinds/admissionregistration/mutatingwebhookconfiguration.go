package admissionregistration

import (
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/staging/api/defaults"
)

// MutatingWebhookConfiguration is the row of mutatingwebhookconfigurations.
func MutatingWebhookConfiguration() *kind.Def {
	return kind.Row(kind.Def{
		Kind: "MutatingWebhookConfiguration", Resource: "mutatingwebhookconfigurations",
		Categories: []string{"api-extensions"},
		Generation: true, NeedVersionOnUpdate: true,
		Check:   kind.Ask(checkMutatingWebhooks),
		Columns: kind.Columns("Name Webhooks:integer Age"),
		Row:     kind.Of(mutatingWebhooksRow),
	}, kind.In[admissionregistrationv1.MutatingWebhookConfiguration, admissionregistrationv1.MutatingWebhookConfigurationList](admissionregistrationv1.SchemeGroupVersion, defaults.MutatingWebhookConfiguration))
}

func mutatingWebhooksRow(c *admissionregistrationv1.MutatingWebhookConfiguration) []any {
	return []any{c.Name, int64(len(c.Webhooks)), kind.Age(c.CreationTimestamp)}
}
