package extensions

import (
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
	}, kind.In[apiregistrationv1.APIService, apiregistrationv1.APIServiceList](apiregistrationv1.SchemeGroupVersion, nil))
}
