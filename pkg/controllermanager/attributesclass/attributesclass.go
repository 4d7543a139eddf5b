// Package attributesclass keeps the classes of volumes' attributes until no claim and no volume names them.
//
// A class brings its key, and so does a claim or volume that names one no longer. Before a class is let go, claims and
// volumes are asked for at the apiserver: the cache may be behind. No state is kept.
package attributesclass

import (
	"context"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sextant-k8s/sextant/pkg/controllermanager/runtime"
)

// New answers the controller.
func New(d runtime.Deps) *runtime.Controller {
	classes, core := d.Informers.Storage().V1().VolumeAttributesClasses(), d.Informers.Core().V1()
	claimsOf := runtime.By(core.PersistentVolumeClaims().Informer(), "attributes", byClaim)
	volumesOf := runtime.By(core.PersistentVolumes().Informer(), "attributes", byVolume)
	used := func(ctx context.Context, name string) (bool, error) {
		if len(claimsOf(name)) > 0 || len(volumesOf(name)) > 0 {
			return true, nil
		}
		claims, err := d.Client.CoreV1().PersistentVolumeClaims("").List(ctx, metav1.ListOptions{})
		if err != nil {
			return false, err
		}
		for i := range claims.Items {
			if slices.Contains(byClaim(&claims.Items[i]), name) {
				return true, nil
			}
		}
		volumes, err := d.Client.CoreV1().PersistentVolumes().List(ctx, metav1.ListOptions{})
		if err != nil {
			return false, err
		}
		return slices.ContainsFunc(volumes.Items, func(v corev1.PersistentVolume) bool { return slices.Contains(byVolume(&v), name) }), nil
	}
	return &runtime.Controller{
		Name: "volumeattributesclass-protection-controller", Account: "volumeattributesclass-protection-controller", Queue: "vacprotection", For: "classes of attributes stay while claims and volumes have them",
		Watches: []runtime.Watch{
			{What: "volumeattributesclasses", Informer: classes.Informer(), Keys: runtime.Self},
			{What: "persistentvolumeclaims", Informer: core.PersistentVolumeClaims().Informer(), NotNew: true, Keys: func(old, obj metav1.Object) []runtime.Key {
				return left(old, obj, byClaim)
			}},
			{What: "persistentvolumes", Informer: core.PersistentVolumes().Informer(), NotNew: true, Keys: func(old, obj metav1.Object) []runtime.Key {
				return left(old, obj, byVolume)
			}},
		},
		Writes: []string{"volumeattributesclasses"},
		Reconcile: func(ctx context.Context, key runtime.Key) (time.Duration, error) {
			c, err := classes.Lister().Get(key.Name)
			if apierrors.IsNotFound(err) {
				return 0, nil
			}
			if err != nil {
				return 0, err
			}
			held := false
			if c.DeletionTimestamp != nil && slices.Contains(c.Finalizers, finalizer) {
				if held, err = used(ctx, c.Name); err != nil {
					return 0, err
				}
			}
			next := decide(c, held)
			if next == nil {
				return 0, nil
			}
			changed := c.DeepCopy()
			changed.Finalizers = next
			_, err = d.Client.StorageV1().VolumeAttributesClasses().Update(ctx, changed, metav1.UpdateOptions{})
			if apierrors.IsNotFound(err) {
				return 0, nil
			}
			return 0, err
		},
	}
}

// left answers the classes that an object named and does not any more.
func left[T metav1.Object](old, obj metav1.Object, names func(T) []string) (keys []runtime.Key) {
	was, now := names(obj.(T)), []string(nil)
	if old != nil {
		was, now = names(old.(T)), was
	}
	for _, n := range was {
		if !slices.Contains(now, n) {
			keys = append(keys, runtime.Key{Name: n})
		}
	}
	return keys
}
