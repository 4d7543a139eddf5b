package admissionregistration

import (
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/staging/api/defaults"
)

// ValidatingWebhookConfiguration is the row of validatingwebhookconfigurations.
func ValidatingWebhookConfiguration() *kind.Def {
	return kind.Row(kind.Def{
		Kind: "ValidatingWebhookConfiguration", Resource: "validatingwebhookconfigurations",
		Categories: []string{"api-extensions"},
		Generation: true, NeedVersionOnUpdate: true,
		Check:   kind.Ask(checkValidatingWebhooks),
		Columns: kind.Columns("Name Webhooks:integer Age"),
		Row:     kind.Of(validatingWebhooksRow),
	}, kind.In[admissionregistrationv1.ValidatingWebhookConfiguration, admissionregistrationv1.ValidatingWebhookConfigurationList](admissionregistrationv1.SchemeGroupVersion, defaults.ValidatingWebhookConfiguration))
}

func validatingWebhooksRow(c *admissionregistrationv1.ValidatingWebhookConfiguration) []any {
	return []any{c.Name, int64(len(c.Webhooks)), kind.Age(c.CreationTimestamp)}
}
