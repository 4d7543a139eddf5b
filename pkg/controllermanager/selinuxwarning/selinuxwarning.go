// Package selinuxwarning warns of pods that share a volume with different SELinux labels, or policies of labelling: where
// volumes are mounted with a label, only one of them can run on a node. It runs only if it is named.
//
// The flow: a pod brings its key, and so do those of a claim, volume or driver that changed; how the pod uses volumes goes
// into the book of who uses what; conflicts that this brings are said of both pods, and all that stand are a metric.
//
// The book is the only state and guards itself. It is kept in memory: after a restart conflicts are said once more.
package selinuxwarning

import (
	"context"
	"fmt"
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

type controller struct {
	runtime.Deps
	pods    corelisters.PodLister
	claims  corelisters.PersistentVolumeClaimLister
	volumes corelisters.PersistentVolumeLister
	drivers storagelisters.CSIDriverLister
	book    *book
}

// New answers the controller.
func New(d runtime.Deps) *runtime.Controller { return newController(d).literal() }

func newController(d runtime.Deps) *controller {
	core, storage := d.Informers.Core().V1(), d.Informers.Storage().V1()
	return &controller{
		Deps: d, pods: core.Pods().Lister(), claims: core.PersistentVolumeClaims().Lister(), volumes: core.PersistentVolumes().Lister(), drivers: storage.CSIDrivers().Lister(), book: newBook(),
	}
}

func (c *controller) literal() *runtime.Controller {
	core, storage := c.Informers.Core().V1(), c.Informers.Storage().V1()
	podsOf := runtime.PodsByClaim(c.Deps)
	users := func(namespace, name string) (keys []runtime.Key) {
		for _, p := range podsOf(namespace + "/" + name) {
			keys = append(keys, runtime.KeyOf(p))
		}
		return keys
	}
	return &runtime.Controller{
		Name: "selinux-warning-controller", Account: "selinux-warning-controller", Queue: "selinux_warning", For: "pods that share a volume and cannot run on one node", Off: true,
		Watches: []runtime.Watch{
			{What: "pods", Informer: core.Pods().Informer(), Keys: runtime.Self},
			{What: "persistentvolumeclaims", Informer: core.PersistentVolumeClaims().Informer(), Keys: func(_, obj metav1.Object) []runtime.Key {
				return users(obj.GetNamespace(), obj.GetName())
			}},
			{What: "persistentvolumes", Informer: core.PersistentVolumes().Informer(), Keys: func(_, obj metav1.Object) []runtime.Key {
				if ref := obj.(*corev1.PersistentVolume).Spec.ClaimRef; ref != nil {
					return users(ref.Namespace, ref.Name)
				}
				return nil
			}},
			{What: "csidrivers", Informer: storage.CSIDrivers().Informer(), Keys: c.everybody},
		},
		Writes:    []string{"events"},
		Start:     func(ctx context.Context, _ func(runtime.Key)) { c.book.keep(ctx.Done()) },
		Reconcile: c.reconcile,
	}
}

// everybody answers all pods, if a driver begins or ends to mount with labels.
func (c *controller) everybody(old, obj metav1.Object) (keys []runtime.Key) {
	mounts := func(o metav1.Object) bool {
		d, ok := o.(*storagev1.CSIDriver)
		return ok && d.Spec.SELinuxMount != nil && *d.Spec.SELinuxMount
	}
	if old != nil && mounts(old) == mounts(obj) {
		return nil
	}
	all, err := c.pods.List(labels.Everything())
	if err != nil {
		return nil // a lister of everything does not fail
	}
	for _, p := range all {
		keys = append(keys, runtime.KeyOf(p))
	}
	return keys
}

func (c *controller) reconcile(_ context.Context, key runtime.Key) (time.Duration, error) {
	pod, err := c.pods.Pods(key.Namespace).Get(key.Name)
	if apierrors.IsNotFound(err) {
		pod, err = nil, nil
	}
	if err != nil {
		return 0, err
	}
	p := decide(c.gather(pod))
	for _, news := range c.book.put(key, p.Uses) {
		// Whoever has gone meanwhile needs not be told.
		if who, err := c.pods.Pods(news.Pod.Namespace).Get(news.Pod.Name); err == nil {
			c.Event(who, runtime.Normal, news.Reason(), news.Message())
		}
	}
	for _, name := range c.book.tell(key, p.Mixed) {
		c.Event(pod, runtime.Warning, "MultipleSELinuxLabels", fmt.Sprintf("Volume %q is mounted twice with different SELinux labels inside this pod", name))
	}
	return 0, nil
}

// gather finds the volumes of a pod that can be mounted with a label. A claim that is not bound brings the pod again when
// it is.
func (c *controller) gather(pod *corev1.Pod) Snapshot {
	s := Snapshot{Pod: pod, Volumes: map[string]string{}}
	if pod == nil {
		return s
	}
	for _, v := range pod.Spec.Volumes {
		var name string
		switch {
		case v.PersistentVolumeClaim != nil:
			name = c.behind(pod.Namespace, v.PersistentVolumeClaim.ClaimName)
		case v.Ephemeral != nil:
			name = c.behind(pod.Namespace, pod.Name+"-"+v.Name)
		case v.ISCSI != nil:
			name = iscsi(v.ISCSI.TargetPortal, v.ISCSI.IQN, v.ISCSI.Lun)
		case v.FC != nil:
			name = fibre(v.FC)
		}
		if name != "" {
			s.Volumes[v.Name] = name
		}
	}
	return s
}

// behind names the volume behind a claim, "" if there is none or no label is mounted with it.
func (c *controller) behind(namespace, claim string) string {
	pvc, err := c.claims.PersistentVolumeClaims(namespace).Get(claim)
	if err != nil {
		return ""
	}
	v, err := c.volumes.Get(pvc.Spec.VolumeName)
	if err != nil || v.Spec.ClaimRef == nil || v.Spec.ClaimRef.UID != pvc.UID {
		return ""
	}
	switch {
	case v.Spec.CSI != nil:
		d, err := c.drivers.Get(v.Spec.CSI.Driver)
		if err != nil || d.Spec.SELinuxMount == nil || !*d.Spec.SELinuxMount {
			return ""
		}
		return "kubernetes.io/csi/" + v.Spec.CSI.Driver + "^" + v.Spec.CSI.VolumeHandle
	case v.Spec.ISCSI != nil:
		return iscsi(v.Spec.ISCSI.TargetPortal, v.Spec.ISCSI.IQN, v.Spec.ISCSI.Lun)
	case v.Spec.FC != nil:
		return fibre(v.Spec.FC)
	}
	return ""
}

func iscsi(portal, iqn string, lun int32) string {
	return fmt.Sprintf("kubernetes.io/iscsi/%s:%s:%d", portal, iqn, lun)
}

func fibre(v *corev1.FCVolumeSource) string {
	lun := int32(0)
	if v.Lun != nil {
		lun = *v.Lun
	}
	return fmt.Sprintf("kubernetes.io/fc/%v:%d:%v", v.TargetWWNs, lun, v.WWIDs)
}
