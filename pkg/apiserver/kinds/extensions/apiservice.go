package extensions

import (
	"fmt"

	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

// APIService is the row of apiservices.
func APIService() *kind.Def {
	return kind.Row(kind.Def{
		Kind: "APIService", Resource: "apiservices",
		Categories: []string{"api-extensions"},
		Prefix:     "apiregistration.k8s.io/apiservices",
		Subs:       []kind.Sub{kind.Status},
		Columns:    kind.Columns("Name Service Available Age"),
		Row:        kind.Of(serviceRow),
	}, kind.In[apiregistrationv1.APIService, apiregistrationv1.APIServiceList](apiregistrationv1.SchemeGroupVersion, nil))
}

func serviceRow(a *apiregistrationv1.APIService) []any {
	service, available := "Local", "Unknown"
	if s := a.Spec.Service; s != nil {
		service = s.Namespace + "/" + s.Name
	}
	for _, c := range a.Status.Conditions {
		if c.Type != apiregistrationv1.Available {
			continue
		}
		available = string(c.Status)
		if c.Status != apiregistrationv1.ConditionTrue {
			available = fmt.Sprintf("%s (%s)", c.Status, c.Reason)
		}
	}
	return []any{a.Name, service, available, kind.Age(a.CreationTimestamp)}
}
