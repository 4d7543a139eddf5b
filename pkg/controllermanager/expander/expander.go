// Package expander tells the users of claims that ask for more who it is that they wait for.
//
// Every volume that can grow is a driver's, whose own resizer makes it grow and writes so into the claim's status; there is
// nothing left to do here but to say that it is waited for. A claim brings its key; no state is kept.
package expander

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
	claims := d.Informers.Core().V1().PersistentVolumeClaims()
	return &runtime.Controller{
		Name: "persistentvolume-expander-controller", Account: "expand-controller", Queue: "volume_expand", For: "users hear whom claims that grow wait for",
		Watches: []runtime.Watch{{What: "persistentvolumeclaims", Informer: claims.Informer(), Keys: func(old, obj metav1.Object) []runtime.Key {
			o, ok := old.(*corev1.PersistentVolumeClaim)
			if c := obj.(*corev1.PersistentVolumeClaim); !decide(c) || ok && o != nil && decide(o) && o.Spec.Resources.Requests.Storage().Cmp(*c.Spec.Resources.Requests.Storage()) == 0 {
				return nil // it was said
			}
			return []runtime.Key{runtime.KeyOf(obj)}
		}}},
		Writes: []string{"events"},
		Reconcile: func(_ context.Context, key runtime.Key) (time.Duration, error) {
			c, err := claims.Lister().PersistentVolumeClaims(key.Namespace).Get(key.Name)
			if apierrors.IsNotFound(err) {
				return 0, nil
			}
			if err == nil && decide(c) {
				d.Event(c, runtime.Normal, "ExternalExpanding", "waiting for an external controller to expand this PVC")
			}
			return 0, err
		},
	}
}
