// Package ttlafterfinished deletes jobs that have been over for as long as they said they were to be kept.
//
// A job brings its key, and comes back when its time is over; before it is deleted it is read again, since its time may
// have been changed. It keeps no state.
package ttlafterfinished

import (
	"context"
	"log/slog"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sextant-k8s/sextant/pkg/controllermanager/runtime"
)

// New answers the controller.
func New(d runtime.Deps) *runtime.Controller {
	jobs := d.Informers.Batch().V1().Jobs()
	return &runtime.Controller{
		Name: "ttl-after-finished-controller", Account: "ttl-after-finished-controller", Queue: "ttl_jobs_to_delete", For: "jobs that are over go after their time",
		Watches: []runtime.Watch{{What: "jobs", Informer: jobs.Informer(), Keys: func(_, obj metav1.Object) []runtime.Key {
			if obj.(*batchv1.Job).Spec.TTLSecondsAfterFinished == nil || obj.GetDeletionTimestamp() != nil {
				return nil
			}
			return []runtime.Key{runtime.KeyOf(obj)}
		}}},
		Writes: []string{"jobs"},
		Reconcile: func(ctx context.Context, key runtime.Key) (time.Duration, error) {
			cached, err := jobs.Lister().Jobs(key.Namespace).Get(key.Name)
			if apierrors.IsNotFound(err) {
				return 0, nil
			}
			if err != nil {
				return 0, err
			}
			if left, over := decide(cached, time.Now()); !over || left > 0 {
				return left, nil
			}
			live, err := d.Client.BatchV1().Jobs(key.Namespace).Get(ctx, key.Name, metav1.GetOptions{})
			if apierrors.IsNotFound(err) || err == nil && live.UID != cached.UID {
				return 0, nil
			}
			if err != nil {
				return 0, err
			}
			if left, over := decide(live, time.Now()); !over || left > 0 {
				return left, nil
			}
			slog.Debug("a job's time is over", "key", key.String())
			foreground := metav1.DeletePropagationForeground
			err = d.Client.BatchV1().Jobs(key.Namespace).Delete(ctx, key.Name, metav1.DeleteOptions{
				PropagationPolicy: &foreground, Preconditions: &metav1.Preconditions{UID: &live.UID, ResourceVersion: &live.ResourceVersion},
			})
			if apierrors.IsNotFound(err) {
				return 0, nil
			}
			return 0, err
		},
	}
}
