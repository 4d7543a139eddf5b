package certificates

import (
	"context"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sextant-k8s/sextant/pkg/controllermanager/runtime"
)

// podRequestAge is when a pod's certificate request is forgotten, answered or not: its kubelet has asked anew long since.
const podRequestAge = 30 * time.Minute

// podRequestExpires answers when a pod's request goes.
func podRequestExpires(r *certificatesv1.PodCertificateRequest) time.Time {
	return r.CreationTimestamp.Add(podRequestAge)
}

// NewPodCleaner answers the controller that forgets the certificate requests of pods.
func NewPodCleaner(d runtime.Deps) *runtime.Controller {
	requests := d.Informers.Certificates().V1().PodCertificateRequests()
	return &runtime.Controller{
		Name: "podcertificaterequest-cleaner-controller", Account: "podcertificaterequest-cleaner", Queue: "podcertificaterequest_cleaner", For: "certificate requests of pods go after half an hour", Workers: 1,
		Watches: []runtime.Watch{{What: "podcertificaterequests", Informer: requests.Informer(), Keys: func(old, obj metav1.Object) []runtime.Key {
			if old != nil { // its age is all that counts
				return nil
			}
			return runtime.Self(old, obj)
		}}},
		Writes: []string{"podcertificaterequests"},
		Reconcile: func(ctx context.Context, key runtime.Key) (time.Duration, error) {
			r, err := requests.Lister().PodCertificateRequests(key.Namespace).Get(key.Name)
			if apierrors.IsNotFound(err) {
				return 0, nil
			}
			if err != nil {
				return 0, err
			}
			if left := time.Until(podRequestExpires(r)); left > 0 {
				return left, nil
			}
			err = d.Client.CertificatesV1().PodCertificateRequests(r.Namespace).Delete(ctx, r.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &r.UID}})
			if apierrors.IsNotFound(err) {
				return 0, nil
			}
			return 0, err
		},
	}
}
