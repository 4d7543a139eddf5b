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

const (
	name        = "kube-root-ca.crt"
	key         = "ca.crt"
	description = "kubernetes.io/description"
	text        = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters."
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
			if apierrors.IsNotFound(err) || err == nil && ns.Status.Phase != corev1.NamespaceActive {
				return 0, nil
			}
			if err != nil {
				return 0, err
			}
			want := map[string]string{key: ca}
			have, err := configs.Lister().ConfigMaps(ns.Name).Get(name)
			if apierrors.IsNotFound(err) {
				_, err = d.Client.CoreV1().ConfigMaps(ns.Name).Create(ctx, &corev1.ConfigMap{
					ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: ns.Name, Annotations: map[string]string{description: text}}, Data: want,
				}, metav1.CreateOptions{})
				if apierrors.IsAlreadyExists(err) || apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
					return 0, nil
				}
				return 0, err
			}
			if err != nil || len(have.Data) == 1 && have.Data[key] == ca && have.Annotations[description] != "" {
				return 0, err
			}
			next := have.DeepCopy()
			next.Data = want
			metav1.SetMetaDataAnnotation(&next.ObjectMeta, description, text)
			_, err = d.Client.CoreV1().ConfigMaps(ns.Name).Update(ctx, next, metav1.UpdateOptions{})
			return 0, err
		},
	}
}
