// Package rootca publishes the cluster's CA in every namespace, where pods find it.
//
// A namespace, or a change of its ConfigMap, brings its key; Reconcile makes the ConfigMap hold the CA. It keeps no state.
package rootca

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sextant-k8s/sextant/pkg/controllermanager/runtime"
)

// New answers the controller; ca is the bundle in PEM form.
func New(d runtime.Deps, ca string) *runtime.Controller {
	namespaces, configs := d.Informers.Core().V1().Namespaces(), d.Informers.Core().V1().ConfigMaps()
	return &runtime.Controller{
		Name: "root-ca-certificate-publisher-controller", Account: "root-ca-cert-publisher", Queue: "root_ca_cert_publisher", For: "the cluster's CA in every namespace",
		Watches: []runtime.Watch{
			{What: "namespaces", Informer: namespaces.Informer(), Keys: runtime.Self},
			{What: "configmaps", Informer: configs.Informer(), Keys: func(_, obj metav1.Object) []runtime.Key {
				if obj.GetName() != name {
					return nil
				}
				return []runtime.Key{{Name: obj.GetNamespace()}}
			}},
		},
		Writes: []string{"configmaps"},
		Reconcile: func(ctx context.Context, k runtime.Key) (time.Duration, error) {
			ns, err := namespaces.Lister().Get(k.Name)
			if apierrors.IsNotFound(err) {
				return 0, nil
			}
			if err != nil {
				return 0, err
			}
			s := Snapshot{Namespace: ns, CA: ca}
			if s.Have, err = configs.Lister().ConfigMaps(ns.Name).Get(name); err != nil && !apierrors.IsNotFound(err) {
				return 0, err
			}
			p, in := decide(s), d.Client.CoreV1().ConfigMaps(ns.Name)
			switch {
			case p.Create != nil:
				_, err = in.Create(ctx, p.Create, metav1.CreateOptions{})
				if apierrors.IsAlreadyExists(err) || apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
					err = nil
				}
				return 0, err
			case p.Update != nil:
				_, err = in.Update(ctx, p.Update, metav1.UpdateOptions{})
				return 0, err
			}
			return 0, nil
		},
	}
}
