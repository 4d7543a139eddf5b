package bootstrap

import (
	"context"
	"log/slog"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	corelisters "k8s.io/client-go/listers/core/v1"

	"github.com/sextant-k8s/sextant/pkg/controllermanager/runtime"
)

// NewSigner answers the controller that signs cluster-info.
func NewSigner(d runtime.Deps) *runtime.Controller {
	secrets, configs := d.Informers.Core().V1().Secrets(), d.Informers.Core().V1().ConfigMaps()
	return &runtime.Controller{
		Name: "bootstrap-signer-controller", Account: "bootstrap-signer", Queue: "bootstrap_signer_queue", For: "cluster-info, signed with every bootstrap token", Off: true, Workers: 1,
		Watches: []runtime.Watch{
			{What: "secrets", Informer: secrets.Informer(), Keys: func(_, obj metav1.Object) []runtime.Key {
				if !isToken(obj) {
					return nil
				}
				return runtime.Everything
			}},
			{What: "configmaps", Informer: configs.Informer(), Keys: func(_, obj metav1.Object) []runtime.Key {
				if obj.GetNamespace() != metav1.NamespacePublic || obj.GetName() != configName {
					return nil
				}
				return runtime.Everything
			}},
		},
		Writes: []string{"configmaps"},
		Reconcile: func(ctx context.Context, _ runtime.Key) (time.Duration, error) {
			info, err := configs.Lister().ConfigMaps(metav1.NamespacePublic).Get(configName)
			if apierrors.IsNotFound(err) {
				return 0, nil
			}
			if err != nil {
				return 0, err
			}
			tokens, err := secrets.Lister().Secrets(metav1.NamespaceSystem).List(labels.Everything())
			if err != nil {
				return 0, err
			}
			p := decide(info, tokens, time.Now())
			if !p.Changed {
				return 0, nil
			}
			slog.Debug("cluster-info is signed anew", "entries", len(p.Data))
			next := info.DeepCopy()
			next.Data = p.Data
			_, err = d.Client.CoreV1().ConfigMaps(metav1.NamespacePublic).Update(ctx, next, metav1.UpdateOptions{})
			return 0, err
		},
	}
}

func isToken(obj metav1.Object) bool {
	s, ok := obj.(*corev1.Secret)
	return ok && s.Namespace == metav1.NamespaceSystem && s.Type == secretType
}

// NewCleaner answers the controller that deletes tokens whose time is over.
func NewCleaner(d runtime.Deps) *runtime.Controller {
	secrets := d.Informers.Core().V1().Secrets()
	return &runtime.Controller{
		Name: "token-cleaner-controller", Account: "token-cleaner", Queue: "token_cleaner", For: "bootstrap tokens whose time is over go", Off: true,
		Watches: []runtime.Watch{{What: "secrets", Informer: secrets.Informer(), Keys: func(_, obj metav1.Object) []runtime.Key {
			if !isToken(obj) {
				return nil
			}
			return []runtime.Key{runtime.KeyOf(obj)}
		}}},
		Writes: []string{"secrets"},
		Reconcile: func(ctx context.Context, key runtime.Key) (time.Duration, error) {
			return clean(ctx, d, secrets.Lister(), key)
		},
	}
}

func clean(ctx context.Context, d runtime.Deps, secrets corelisters.SecretLister, key runtime.Key) (time.Duration, error) {
	s, err := secrets.Secrets(key.Namespace).Get(key.Name)
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	end, bounded := ends(s)
	if !bounded {
		return 0, nil
	}
	if left := time.Until(end); left > 0 {
		return left, nil
	}
	err = d.Client.CoreV1().Secrets(s.Namespace).Delete(ctx, s.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &s.UID, ResourceVersion: &s.ResourceVersion}})
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	return 0, err
}
