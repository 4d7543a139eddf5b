// Package trustbundle publishes the authority of the API server's own certificate, for pods to project.
//
// Any bundle of its signer brings the one key; decide makes the one that is named after its own bytes be there, and all
// others of the signer go. Running servers thus hand over from one authority to the next. It keeps no state.
package trustbundle

import (
	"context"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/sextant-k8s/sextant/pkg/controllermanager/runtime"
)

// New answers the controller; ca is the bundle in PEM form.
func New(d runtime.Deps, ca string) *runtime.Controller {
	bundles := d.Informers.Certificates().V1().ClusterTrustBundles()
	return &runtime.Controller{
		Name: "kube-apiserver-serving-clustertrustbundle-publisher-controller", Account: "kube-apiserver-serving-clustertrustbundle-publisher",
		Queue: "ca_trust_bundle_publisher", For: "the API server's authority as a trust bundle", Workers: 1,
		Watches: []runtime.Watch{{What: "clustertrustbundles", Informer: bundles.Informer(), Keys: runtime.All}},
		Writes:  []string{"clustertrustbundles"},
		Start: func(ctx context.Context, enqueue func(runtime.Key)) { // there may be no bundle to begin from
			for _, k := range runtime.Everything {
				enqueue(k)
			}
			<-ctx.Done()
		},
		Reconcile: func(ctx context.Context, _ runtime.Key) (time.Duration, error) {
			have, err := bundles.Lister().List(labels.Everything())
			if err != nil {
				return 0, err
			}
			p, in := decide(ca, have), d.Client.CertificatesV1().ClusterTrustBundles()
			if p.Create != nil {
				if _, err := in.Create(ctx, p.Create, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
					return 0, err
				}
			}
			if p.Update != nil {
				if _, err := in.Update(ctx, p.Update, metav1.UpdateOptions{}); err != nil {
					return 0, err
				}
			}
			for _, b := range p.Delete { // after the new one is there
				err := in.Delete(ctx, b.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &b.UID}})
				if err != nil && !apierrors.IsNotFound(err) {
					return 0, err
				}
			}
			return 0, nil
		},
	}
}
