package trustbundle

import (
	"testing"

	certificatesv1 "k8s.io/api/certificates/v1"

	"github.com/sextant-k8s/sextant/pkg/controllermanager/golden"
)

// TestDecide shows what becomes of the bundles of an archive, for the authority "CA".
func TestDecide(t *testing.T) {
	golden.Run(t, func(t *testing.T, files map[string]string) string {
		have := golden.Objects[certificatesv1.ClusterTrustBundle](t, files["bundles.yaml"])
		p := decide("CA", have)
		var next []*certificatesv1.ClusterTrustBundle
		for _, b := range have {
			if b.Spec.SignerName != signer {
				next = append(next, b)
			}
		}
		for _, b := range []*certificatesv1.ClusterTrustBundle{p.Create, p.Update} {
			if b != nil {
				next = append(next, b)
			}
		}
		if p.Create != nil || p.Update != nil {
			if again := decide("CA", next).String(); again != "" {
				t.Errorf("once is not enough: %s", again)
			}
		}
		return p.String()
	})
}
