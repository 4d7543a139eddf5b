// Package ephemeral makes the claims of volumes that live and die with their pod.
//
// A pod, or the loss of such a claim, brings the pod's key; the claim is the pod's own and goes with it by garbage
// collection. No state is kept: a claim that the cache has not shown yet is refused by the apiserver a second time.
package ephemeral

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sextant-k8s/sextant/pkg/controllermanager/runtime"
)

// New answers the controller.
func New(d runtime.Deps) *runtime.Controller {
	pods, claims := d.Informers.Core().V1().Pods(), d.Informers.Core().V1().PersistentVolumeClaims()
	return &runtime.Controller{
		Name: "ephemeral-volume-controller", Account: "ephemeral-volume-controller", Queue: "ephemeral_volume", For: "claims that live and die with their pod",
		Watches: []runtime.Watch{
			{What: "pods", Informer: pods.Informer(), Keys: func(old, obj metav1.Object) []runtime.Key {
				if old != nil || !has(obj.(*corev1.Pod)) {
					return nil // a pod's volumes never change
				}
				return []runtime.Key{runtime.KeyOf(obj)}
			}},
			{What: "persistentvolumeclaims", Informer: claims.Informer(), Keys: runtime.Owner("Pod"), NotNew: true},
		},
		Writes: []string{"persistentvolumeclaims"},
		Reconcile: func(ctx context.Context, key runtime.Key) (time.Duration, error) {
			p, err := pods.Lister().Pods(key.Namespace).Get(key.Name)
			if apierrors.IsNotFound(err) {
				return 0, nil
			}
			if err != nil {
				return 0, err
			}
			have := map[string]*corev1.PersistentVolumeClaim{}
			for _, name := range runtime.ClaimsOf(p) {
				if c, err := claims.Lister().PersistentVolumeClaims(key.Namespace).Get(name); err == nil {
					have[name] = c
				}
			}
			plan := decide(p, have)
			errs := plan.Faults
			for _, c := range plan.Create {
				if _, err := d.Client.CoreV1().PersistentVolumeClaims(c.Namespace).Create(ctx, c, metav1.CreateOptions{}); err != nil && !apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
					errs = append(errs, fmt.Errorf("create PVC %s: %w", c.Name, err))
				}
			}
			for _, err := range errs {
				if !apierrors.IsAlreadyExists(err) { // the cache is about to show whose it is
					d.Event(p, runtime.Warning, "FailedBinding", err.Error())
				}
			}
			return 0, errors.Join(errs...)
		},
	}
}

func has(p *corev1.Pod) bool {
	for _, v := range p.Spec.Volumes {
		if v.Ephemeral != nil {
			return true
		}
	}
	return false
}
