package certificates

import (
	certificatesv1 "k8s.io/api/certificates/v1"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/staging/api/defaults"
)

// PodCertificateRequest is the row of podcertificaterequests. Nodes make them, signers answer in the status.
func PodCertificateRequest() *kind.Def {
	return kind.Row(kind.Def{
		Kind: "PodCertificateRequest", Resource: "podcertificaterequests", Namespaced: true,
		Check:      kind.Ask(checkPodRequest),
		FieldNames: []string{"spec.signerName", "spec.podName", "spec.nodeName"},
		Fields: kind.Of(func(r *certificatesv1.PodCertificateRequest) map[string]string {
			return map[string]string{"spec.signerName": r.Spec.SignerName, "spec.podName": r.Spec.PodName, "spec.nodeName": string(r.Spec.NodeName)}
		}),
		Columns: kind.Columns("Name PodName ServiceAccountName NodeName SignerName State"),
		Row: kind.Of(func(r *certificatesv1.PodCertificateRequest) []any {
			return []any{r.Name, r.Spec.PodName, r.Spec.ServiceAccountName, string(r.Spec.NodeName), r.Spec.SignerName, state(r)}
		}),
		Subs: []kind.Sub{{Name: "status", Aspect: &kind.Rules{Check: kind.Ask(checkPodAnswer)}}},
	}, kind.In[certificatesv1.PodCertificateRequest, certificatesv1.PodCertificateRequestList](certificatesv1.SchemeGroupVersion, defaults.PodCertificateRequest))
}

// state is what became of a request.
func state(r *certificatesv1.PodCertificateRequest) string {
	for _, c := range r.Status.Conditions {
		if final(c.Type) {
			return c.Type
		}
	}
	return "Pending"
}

// final tells whether a condition ends a request.
func final(condition string) bool {
	switch condition {
	case certificatesv1.PodCertificateRequestConditionTypeIssued, certificatesv1.PodCertificateRequestConditionTypeDenied, certificatesv1.PodCertificateRequestConditionTypeFailed:
		return true
	}
	return false
}
