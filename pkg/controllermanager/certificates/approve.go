package certificates

import (
	"context"
	"fmt"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sextant-k8s/sextant/pkg/controllermanager/runtime"
)

// NewApproving answers the controller that approves kubelets' client certificates to whom the apiserver gives the right.
func NewApproving(d runtime.Deps) *runtime.Controller {
	requests := d.Informers.Certificates().V1().CertificateSigningRequests()
	return &runtime.Controller{
		Name: "certificatesigningrequest-approving-controller", Account: "certificate-controller", Queue: "certificate-csrapproving", For: "kubelets' client certificates, approved by themselves",
		Watches: []runtime.Watch{{What: "certificatesigningrequests", Informer: requests.Informer(), Keys: runtime.Self}},
		Writes:  []string{"certificatesigningrequests/approval"},
		Reconcile: func(ctx context.Context, key runtime.Key) (time.Duration, error) {
			r, err := requests.Lister().Get(key.Name)
			if apierrors.IsNotFound(err) {
				return 0, nil
			}
			if err != nil {
				return 0, err
			}
			grants := approve(r)
			for _, g := range grants {
				may, err := allows(ctx, d, r, g)
				if err != nil {
					return 0, err
				}
				if !may {
					continue
				}
				next := r.DeepCopy()
				now := metav1.Now()
				next.Status.Conditions = append(next.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{
					Type: certificatesv1.CertificateApproved, Status: corev1.ConditionTrue, Reason: "AutoApproved", Message: g.Message, LastUpdateTime: now, LastTransitionTime: now,
				})
				_, err = d.Client.CertificatesV1().CertificateSigningRequests().UpdateApproval(ctx, r.Name, next, metav1.UpdateOptions{})
				return 0, err
			}
			if len(grants) > 0 {
				return 0, fmt.Errorf("recognized csr %q, but who asks (%s) has no right to it yet", r.Name, r.Spec.Username)
			}
			return 0, nil
		},
	}
}

// allows asks the apiserver whether who sent a request has a right.
func allows(ctx context.Context, d runtime.Deps, r *certificatesv1.CertificateSigningRequest, g Grant) (bool, error) {
	extra := map[string]authorizationv1.ExtraValue{}
	for k, v := range r.Spec.Extra {
		extra[k] = authorizationv1.ExtraValue(v)
	}
	got, err := d.Client.AuthorizationV1().SubjectAccessReviews().Create(ctx, &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
		User: r.Spec.Username, UID: r.Spec.UID, Groups: r.Spec.Groups, Extra: extra,
		ResourceAttributes: &authorizationv1.ResourceAttributes{
			Group: certificatesv1.GroupName, Version: "*", Resource: "certificatesigningrequests", Subresource: g.Subresource, Verb: "create",
		},
	}}, metav1.CreateOptions{})
	if err != nil {
		return false, fmt.Errorf("asking whether %s may have a certificate: %w", r.Spec.Username, err)
	}
	return got.Status.Allowed, nil
}

// NewCleaner answers the controller that forgets requests that are over.
func NewCleaner(d runtime.Deps) *runtime.Controller {
	requests := d.Informers.Certificates().V1().CertificateSigningRequests()
	return &runtime.Controller{
		Name: "certificatesigningrequest-cleaner-controller", Account: "certificate-controller", Queue: "certificate-cleaner", For: "certificate requests that are over go", Workers: 1,
		Watches: []runtime.Watch{{What: "certificatesigningrequests", Informer: requests.Informer(), Keys: runtime.Self}},
		Writes:  []string{"certificatesigningrequests"},
		Reconcile: func(ctx context.Context, key runtime.Key) (time.Duration, error) {
			r, err := requests.Lister().Get(key.Name)
			if apierrors.IsNotFound(err) {
				return 0, nil
			}
			if err != nil {
				return 0, err
			}
			if left := time.Until(expires(r)); left > 0 {
				return left, nil
			}
			err = d.Client.CertificatesV1().CertificateSigningRequests().Delete(ctx, r.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &r.UID, ResourceVersion: &r.ResourceVersion}})
			if apierrors.IsNotFound(err) {
				return 0, nil
			}
			return 0, err
		},
	}
}
