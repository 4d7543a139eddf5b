// Package serviceaccount gives every namespace its default service account.
//
// A namespace, or the loss of its account, brings its key; Reconcile creates what is missing. It keeps no state.
package serviceaccount

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sextant-k8s/sextant/pkg/controllermanager/runtime"
)

// New answers the controller.
func New(d runtime.Deps) *runtime.Controller {
	namespaces, accounts := d.Informers.Core().V1().Namespaces(), d.Informers.Core().V1().ServiceAccounts()
	return &runtime.Controller{
		Name: "serviceaccount-controller", Account: "service-account-controller", Queue: "serviceaccount", For: "a default service account in every namespace",
		Watches: []runtime.Watch{
			{What: "namespaces", Informer: namespaces.Informer(), Keys: runtime.Self},
			{What: "serviceaccounts", Informer: accounts.Informer(), Keys: func(_, obj metav1.Object) []runtime.Key {
				if obj.GetName() != name {
					return nil
				}
				return []runtime.Key{{Name: obj.GetNamespace()}}
			}},
		},
		Writes: []string{"serviceaccounts"},
		Reconcile: func(ctx context.Context, key runtime.Key) (time.Duration, error) {
			ns, err := namespaces.Lister().Get(key.Name)
			if apierrors.IsNotFound(err) {
				return 0, nil
			}
			if err != nil {
				return 0, err
			}
			s := Snapshot{Namespace: ns}
			if s.Have, err = accounts.Lister().ServiceAccounts(ns.Name).Get(name); err != nil && !apierrors.IsNotFound(err) {
				return 0, err
			}
			p := decide(s)
			if p.Create == nil {
				return 0, nil
			}
			_, err = d.Client.CoreV1().ServiceAccounts(ns.Name).Create(ctx, p.Create, metav1.CreateOptions{})
			if apierrors.IsAlreadyExists(err) || apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
				return 0, nil
			}
			return 0, err
		},
	}
}
