// Package volumebinder finds claims their volumes, and asks provisioners for those that have none.
//
// The flow: a claim, or a volume, brings its key; decide* says who is for whom; the volume is written before the claim
// and with the version that was looked at, so that of two claims only one gets it. One worker runs and no state is kept.
package volumebinder

import (
	"context"
	"log/slog"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	corelisters "k8s.io/client-go/listers/core/v1"
	storagelisters "k8s.io/client-go/listers/storage/v1"

	"github.com/sextant-k8s/sextant/pkg/controllermanager/runtime"
)

// resync is how often a claim that waits is looked at, should what it waits for have been missed.
const resync = time.Minute

type controller struct {
	runtime.Deps
	claims  corelisters.PersistentVolumeClaimLister
	volumes corelisters.PersistentVolumeLister
	classes storagelisters.StorageClassLister
}

// New answers the controller. Keys with a namespace are claims, others volumes.
func New(d runtime.Deps) *runtime.Controller {
	core, classes := d.Informers.Core().V1(), d.Informers.Storage().V1().StorageClasses()
	c := &controller{Deps: d, claims: core.PersistentVolumeClaims().Lister(), volumes: core.PersistentVolumes().Lister(), classes: classes.Lister()}
	return &runtime.Controller{
		Name: "persistentvolume-binder-controller", Account: "persistent-volume-binder", Queue: "claims", For: "claims and the volumes that are for them", Workers: 1,
		Watches: []runtime.Watch{
			{What: "persistentvolumeclaims", Informer: core.PersistentVolumeClaims().Informer(), Keys: func(_, obj metav1.Object) []runtime.Key {
				keys := []runtime.Key{runtime.KeyOf(obj)}
				if name := obj.(*corev1.PersistentVolumeClaim).Spec.VolumeName; name != "" {
					keys = append(keys, runtime.Key{Name: name})
				}
				return keys
			}},
			{What: "persistentvolumes", Informer: core.PersistentVolumes().Informer(), Keys: c.ofVolume},
			{What: "storageclasses", Informer: classes.Informer(), Keys: func(_, obj metav1.Object) []runtime.Key {
				return c.waiting(func(x *corev1.PersistentVolumeClaim) bool {
					return x.Spec.StorageClassName == nil || *x.Spec.StorageClassName == obj.GetName()
				})
			}},
		},
		Writes: []string{"persistentvolumes", "persistentvolumes/status", "persistentvolumeclaims", "persistentvolumeclaims/status"}, Reconcile: c.reconcile,
	}
}

// ofVolume answers a volume, its claim, and if it has none the claims that wait for one of its class.
func (c *controller) ofVolume(_, obj metav1.Object) []runtime.Key {
	v := obj.(*corev1.PersistentVolume)
	keys := []runtime.Key{{Name: v.Name}}
	if r := v.Spec.ClaimRef; r != nil {
		return append(keys, runtime.Key{Namespace: r.Namespace, Name: r.Name})
	}
	return append(keys, c.waiting(func(x *corev1.PersistentVolumeClaim) bool { return className(x) == v.Spec.StorageClassName })...)
}

func (c *controller) waiting(concerns func(*corev1.PersistentVolumeClaim) bool) []runtime.Key {
	all, err := c.claims.List(labels.Everything())
	if err != nil {
		return nil
	}
	var keys []runtime.Key
	for _, x := range all {
		if x.Status.Phase != corev1.ClaimBound && concerns(x) {
			keys = append(keys, runtime.KeyOf(x))
		}
	}
	return keys
}

func (c *controller) reconcile(ctx context.Context, key runtime.Key) (time.Duration, error) {
	if key.Namespace == "" {
		return 0, c.volume(ctx, key)
	}
	claim, err := c.claims.PersistentVolumeClaims(key.Namespace).Get(key.Name)
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	s := Snapshot{Claim: claim}
	if s.Volumes, err = c.volumes.List(labels.Everything()); err != nil {
		return 0, err
	}
	var classes []*storagev1.StorageClass
	if classes, err = c.classes.List(labels.Everything()); err != nil {
		return 0, err
	}
	s.Classes = classes
	p := decideClaim(s)
	if text := p.String(); text != "" {
		slog.Debug("claim", "key", key.String(), "plan", text)
	}
	again := time.Duration(0)
	if claim.Status.Phase != corev1.ClaimBound && p.ClaimStatus == nil {
		again = resync
	}
	volume := p.Volume
	if volume == nil && p.VolumeStatus != nil {
		for _, v := range s.Volumes {
			if v.Name == claim.Spec.VolumeName || v.Spec.ClaimRef != nil && refers(v.Spec.ClaimRef, claim) {
				volume = v
			}
		}
	}
	return again, c.apply(ctx, claim, volume, p)
}

func (c *controller) volume(ctx context.Context, key runtime.Key) error {
	v, err := c.volumes.Get(key.Name)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	var claim *corev1.PersistentVolumeClaim
	if r := v.Spec.ClaimRef; r != nil {
		claim, err = c.claims.PersistentVolumeClaims(r.Namespace).Get(r.Name)
		if apierrors.IsNotFound(err) { // the cache may be behind, and what follows is a volume released
			claim, err = c.Client.CoreV1().PersistentVolumeClaims(r.Namespace).Get(ctx, r.Name, metav1.GetOptions{})
		}
		if apierrors.IsNotFound(err) {
			claim, err = nil, nil
		}
		if err != nil {
			return err
		}
	}
	p := decideVolume(v, claim)
	if text := p.String(); text != "" {
		slog.Debug("volume", "name", v.Name, "plan", text)
	}
	return c.apply(ctx, nil, v, p)
}

func (c *controller) apply(ctx context.Context, claim *corev1.PersistentVolumeClaim, v *corev1.PersistentVolume, p Plan) error {
	volumes := c.Client.CoreV1().PersistentVolumes()
	var err error
	if p.Volume != nil {
		if v, err = volumes.Update(ctx, p.Volume, metav1.UpdateOptions{}); err != nil {
			return err
		}
	}
	if p.VolumeStatus != nil && v != nil {
		next := v.DeepCopy()
		next.Status.Phase, next.Status.Message, next.Status.Reason = p.VolumeStatus.Phase, p.VolumeStatus.Message, ""
		if _, err = volumes.UpdateStatus(ctx, next, metav1.UpdateOptions{}); err != nil {
			return err
		}
	}
	if claim == nil {
		for _, e := range p.Tell {
			c.Event(v, e.Type, e.Reason, e.Message)
		}
		return nil
	}
	claims := c.Client.CoreV1().PersistentVolumeClaims(claim.Namespace)
	now := claim
	if p.Claim != nil {
		if now, err = claims.Update(ctx, p.Claim, metav1.UpdateOptions{}); err != nil {
			return err
		}
	}
	if p.ClaimStatus != nil {
		next := now.DeepCopy()
		next.Status = *p.ClaimStatus
		if _, err = claims.UpdateStatus(ctx, next, metav1.UpdateOptions{}); err != nil {
			return err
		}
	}
	for _, e := range p.Tell {
		c.Event(claim, e.Type, e.Reason, e.Message)
	}
	return nil
}
