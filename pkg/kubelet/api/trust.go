package api

import (
	"context"

	certv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// trustBundles are the ClusterTrustBundles.
type trustBundles struct {
	Resource[certv1.ClusterTrustBundle, *certv1.ClusterTrustBundle]
}

// Of lists those of a signer.
func (t trustBundles) Of(ctx context.Context, signer string) ([]certv1.ClusterTrustBundle, error) {
	list := &certv1.ClusterTrustBundleList{}
	err := t.rest.Get().Resource(t.name).VersionedParams(&metav1.ListOptions{FieldSelector: "spec.signerName=" + signer}, t.params).Do(ctx).Into(list)
	return list.Items, err
}
