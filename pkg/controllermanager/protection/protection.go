// Package protection keeps volumes and claims that are in use until they are not: their finalizer comes off when no pod
// uses the claim, and when no claim has the volume.
//
// Two controllers: a claim, or a pod that used one and leaves, brings the claim's key; a volume brings its own. Before a
// claim is let go, pods are asked for at the apiserver: the cache may be behind. No state is kept.
package protection

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/sextant-k8s/sextant/pkg/controllermanager/runtime"
)

// NewClaims answers the controller of claims.
func NewClaims(d runtime.Deps) *runtime.Controller {
	claims, pods := d.Informers.Core().V1().PersistentVolumeClaims(), d.Informers.Core().V1().Pods()
	return &runtime.Controller{
		Name: "persistentvolumeclaim-protection-controller", Account: "pvc-protection-controller", Queue: "pvcprotection", For: "claims stay while pods use them",
		Watches: []runtime.Watch{
			{What: "persistentvolumeclaims", Informer: claims.Informer(), Keys: runtime.Self},
			{What: "pods", Informer: pods.Informer(), NotNew: true, Keys: func(old, obj metav1.Object) []runtime.Key {
				p := obj.(*corev1.Pod)
				if old != nil && (p.DeletionTimestamp == nil || p.DeletionGracePeriodSeconds == nil || *p.DeletionGracePeriodSeconds > 0) {
					return nil
				}
				var keys []runtime.Key
				for _, name := range claimsOf(p) {
					keys = append(keys, runtime.Key{Namespace: p.Namespace, Name: name})
				}
				return keys
			}},
		},
		Writes: []string{"persistentvolumeclaims"},
		Reconcile: func(ctx context.Context, key runtime.Key) (time.Duration, error) {
			c, err := claims.Lister().PersistentVolumeClaims(key.Namespace).Get(key.Name)
			if apierrors.IsNotFound(err) {
				return 0, nil
			}
			if err != nil {
				return 0, err
			}
			near, err := pods.Lister().Pods(key.Namespace).List(labels.Everything())
			if err != nil {
				return 0, err
			}
			next := decideClaim(c, near)
			if next == nil {
				return 0, nil
			}
			if c.DeletionTimestamp != nil {
				live, err := d.Client.CoreV1().Pods(key.Namespace).List(ctx, metav1.ListOptions{})
				if err != nil {
					return 0, err
				}
				near = nil
				for i := range live.Items {
					near = append(near, &live.Items[i])
				}
				if next = decideClaim(c, near); next == nil {
					return 0, nil
				}
			}
			changed := c.DeepCopy()
			changed.Finalizers = next
			_, err = d.Client.CoreV1().PersistentVolumeClaims(c.Namespace).Update(ctx, changed, metav1.UpdateOptions{})
			if apierrors.IsNotFound(err) {
				return 0, nil
			}
			return 0, err
		},
	}
}

// NewVolumes answers the controller of volumes.
func NewVolumes(d runtime.Deps) *runtime.Controller {
	volumes := d.Informers.Core().V1().PersistentVolumes()
	return &runtime.Controller{
		Name: "persistentvolume-protection-controller", Account: "pv-protection-controller", Queue: "pvprotection", For: "volumes stay while claims have them",
		Watches: []runtime.Watch{{What: "persistentvolumes", Informer: volumes.Informer(), Keys: runtime.Self}},
		Writes:  []string{"persistentvolumes"},
		Reconcile: func(ctx context.Context, key runtime.Key) (time.Duration, error) {
			v, err := volumes.Lister().Get(key.Name)
			if apierrors.IsNotFound(err) {
				return 0, nil
			}
			if err != nil {
				return 0, err
			}
			next := decideVolume(v)
			if next == nil {
				return 0, nil
			}
			changed := v.DeepCopy()
			changed.Finalizers = next
			_, err = d.Client.CoreV1().PersistentVolumes().Update(ctx, changed, metav1.UpdateOptions{})
			if apierrors.IsNotFound(err) {
				return 0, nil
			}
			return 0, err
		},
	}
}
