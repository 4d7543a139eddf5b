package trustbundle

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"

	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// signer is whose authority is published.
const signer = "kubernetes.io/kube-apiserver-serving"

// Plan is what is to be done, in this order.
type Plan struct {
	Create, Update *certificatesv1.ClusterTrustBundle
	Delete         []*certificatesv1.ClusterTrustBundle
}

// String is the plan in words, "" for nothing.
func (p Plan) String() string {
	var b strings.Builder
	if p.Create != nil {
		fmt.Fprintf(&b, "create %s\n", p.Create.Name)
	}
	if p.Update != nil {
		fmt.Fprintf(&b, "update %s\n", p.Update.Name)
	}
	for _, d := range p.Delete {
		fmt.Fprintf(&b, "delete %s\n", d.Name)
	}
	return b.String()
}

// nameOf is the name of the bundle that holds an authority: a new authority is a new object.
func nameOf(ca string) string {
	sum := sha256.Sum256([]byte(ca))
	return fmt.Sprintf("%s:%x", strings.ReplaceAll(signer, "/", ":"), sum[:6])
}

// decide makes one bundle of the signer be there, as it should be; those of other signers are not looked at.
func decide(ca string, have []*certificatesv1.ClusterTrustBundle) (p Plan) {
	name, found := nameOf(ca), false
	for _, b := range have {
		switch {
		case b.Spec.SignerName != signer:
		case b.Name != name:
			if b.DeletionTimestamp == nil {
				p.Delete = append(p.Delete, b)
			}
		default:
			found = true
			if b.Spec.TrustBundle != ca {
				p.Update = b.DeepCopy()
				p.Update.Spec.TrustBundle = ca
			}
		}
	}
	slices.SortFunc(p.Delete, func(a, b *certificatesv1.ClusterTrustBundle) int { return strings.Compare(a.Name, b.Name) })
	if !found {
		p.Create = &certificatesv1.ClusterTrustBundle{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: certificatesv1.ClusterTrustBundleSpec{SignerName: signer, TrustBundle: ca}}
	}
	return p
}
