// Package localpath provisions volumes that are directories of nodes, so that claims work where there is no storage but the
// nodes' own disks.
//
// The flow: a claim that the scheduler chose a node for brings its key, a volume that was released its own, and a pod of ours
// that of either; decide* says the next step. Directories are made and removed by pods of ours on the node itself, which
// name nothing but the volume. Every step finds what the last one left by name, so no state is kept.
package localpath

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	corelisters "k8s.io/client-go/listers/core/v1"
	storagelisters "k8s.io/client-go/listers/storage/v1"

	"github.com/sextant-k8s/sextant/pkg/controllermanager/runtime"
)

// Config is where directories are made, and by what.
type Config struct {
	Dir   string // on every node
	Image string // of the pods that make and remove them: it has /bin/sh, mkdir and rm
}

type controller struct {
	runtime.Deps
	Config
	claims  corelisters.PersistentVolumeClaimLister
	volumes corelisters.PersistentVolumeLister
	nodes   corelisters.NodeLister
	pods    corelisters.PodLister
	classes storagelisters.StorageClassLister
	written runtime.Written // volumes
}

const (
	makes, removes = "local-path-make-", "local-path-remove-" // names of our pods, before the volume's
	ClaimNote      = "sextant.dev/claim"                      // the note of a pod that makes: namespace/name
	namespace      = metav1.NamespaceSystem
	// deadline is how long a pod may take, in seconds. One whose node is silent is not waited for longer.
	deadline = 300
)

// appLabels are on every pod of ours.
var appLabels = labels.Set{"app.kubernetes.io/name": "local-path-provisioner"}

// New answers the controller. Keys with a namespace are claims, others volumes.
func New(d runtime.Deps, conf Config) *runtime.Controller {
	core, classes := d.Informers.Core().V1(), d.Informers.Storage().V1().StorageClasses()
	c := &controller{
		Deps: d, Config: conf, claims: core.PersistentVolumeClaims().Lister(), volumes: core.PersistentVolumes().Lister(), nodes: core.Nodes().Lister(), pods: core.Pods().Lister(), classes: classes.Lister(),
	}
	return &runtime.Controller{
		Name: "local-path-provisioner-controller", Account: "persistent-volume-binder", For: "directories of nodes as volumes, where there is no other storage",
		Watches: []runtime.Watch{
			{What: "persistentvolumeclaims", Informer: core.PersistentVolumeClaims().Informer(), Keys: func(_, obj metav1.Object) []runtime.Key {
				if obj.GetAnnotations()[claimNote] != Provisioner {
					return nil
				}
				return []runtime.Key{runtime.KeyOf(obj)}
			}},
			{What: "persistentvolumes", Informer: core.PersistentVolumes().Informer(), Keys: func(_, obj metav1.Object) []runtime.Key {
				v := obj.(*corev1.PersistentVolume)
				if v.Annotations[provisionedNote] != Provisioner {
					return nil
				}
				keys := []runtime.Key{runtime.KeyOf(obj)}
				if r := v.Spec.ClaimRef; r != nil {
					keys = append(keys, runtime.Key{Namespace: r.Namespace, Name: r.Name})
				}
				return keys
			}},
			{What: "pods", Informer: core.Pods().Informer(), Keys: ofPod},
			{What: "nodes", Informer: core.Nodes().Informer(), NotNew: true, Keys: c.ofNode},
			{What: "storageclasses", Informer: classes.Informer(), Keys: c.ofClass},
		},
		Writes: []string{"persistentvolumes", "persistentvolumeclaims", "pods"}, Reconcile: c.reconcile,
	}
}

// ofPod answers the claim or volume that a pod of ours works for.
func ofPod(_, obj metav1.Object) []runtime.Key {
	if obj.GetNamespace() != namespace {
		return nil
	}
	if ns, name, ok := strings.Cut(obj.GetAnnotations()[ClaimNote], "/"); ok && strings.HasPrefix(obj.GetName(), makes) {
		return []runtime.Key{{Namespace: ns, Name: name}}
	}
	if name, ok := strings.CutPrefix(obj.GetName(), removes); ok {
		return []runtime.Key{{Name: name}}
	}
	return nil
}

// ofNode answers the volumes of a node that is gone.
func (c *controller) ofNode(old, obj metav1.Object) (keys []runtime.Key) {
	if old != nil {
		return nil
	}
	all, err := c.volumes.List(labels.Everything())
	if err != nil {
		return nil // a lister of everything does not fail
	}
	for _, v := range all {
		if v.Annotations[provisionedNote] == Provisioner && hostOf(v) == obj.GetLabels()[corev1.LabelHostname] {
			keys = append(keys, runtime.KeyOf(v))
		}
	}
	return keys
}

// ofClass answers the claims that wait for a volume of a class: they may have come before it, or before it was seen.
func (c *controller) ofClass(_, obj metav1.Object) (keys []runtime.Key) {
	all, err := c.claims.List(labels.Everything())
	if err != nil {
		return nil // a lister of everything does not fail
	}
	for _, x := range all {
		if class := x.Spec.StorageClassName; x.Spec.VolumeName == "" && x.Annotations[claimNote] == Provisioner && class != nil && *class == obj.GetName() {
			keys = append(keys, runtime.KeyOf(x))
		}
	}
	return keys
}

func (c *controller) reconcile(ctx context.Context, key runtime.Key) (time.Duration, error) {
	if key.Namespace == "" {
		return 0, c.volume(ctx, key.Name)
	}
	claim, err := c.claims.PersistentVolumeClaims(key.Namespace).Get(key.Name)
	if err != nil && !apierrors.IsNotFound(err) {
		return 0, err
	}
	if err != nil {
		claim = nil
	}
	if err := c.strays(ctx, key, claim); err != nil || claim == nil {
		return 0, err
	}
	s := ClaimSnapshot{Claim: claim, Dir: c.Dir}
	if claim.Spec.StorageClassName != nil {
		s.Class, _ = c.classes.Get(*claim.Spec.StorageClassName) // nil if it is gone
	}
	if s.Node, err = c.chosen(ctx, claim); err != nil {
		return 0, err
	}
	if _, err = c.volumes.Get(volumeName(claim)); err == nil {
		s.Volume = true
	}
	pod := makes + volumeName(claim)
	if s.Pod, err = c.pods.Pods(namespace).Get(pod); err != nil {
		s.Pod = nil
	}
	p := decideClaim(s)
	for _, e := range p.Tell {
		c.Event(claim, e.Type, e.Reason, e.Message)
	}
	if p.Volume != nil {
		if _, err := c.Client.CoreV1().PersistentVolumes().Create(ctx, p.Volume, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
			return 0, err
		}
	}
	if p.Unselect {
		next := claim.DeepCopy()
		delete(next.Annotations, selectedNote)
		if _, err := c.Client.CoreV1().PersistentVolumeClaims(claim.Namespace).Update(ctx, next, metav1.UpdateOptions{}); err != nil {
			return 0, err
		}
	}
	return 0, c.work(ctx, p, pod, s.Pod, key.String())
}

// strays undoes what pods made for a claim of this name that is gone; claim is the one that is there, nil if none is.
func (c *controller) strays(ctx context.Context, key runtime.Key, claim *corev1.PersistentVolumeClaim) error {
	pods, err := c.pods.Pods(namespace).List(labels.SelectorFromSet(appLabels))
	if err != nil {
		return err
	}
	for _, p := range pods {
		volume, making := strings.CutPrefix(p.Name, makes)
		if !making || p.Annotations[ClaimNote] != key.String() || claim != nil && volume == volumeName(claim) {
			continue
		}
		plan := Plan{Undo: true}
		if _, err := c.volumes.Get(volume); err == nil {
			plan = Plan{Clear: true} // it goes as the volume does
		}
		if err := c.work(ctx, plan, "", p, ""); err != nil {
			return err
		}
	}
	return nil
}

func (c *controller) volume(ctx context.Context, name string) error {
	v, err := c.volumes.Get(name)
	if apierrors.IsNotFound(err) {
		c.written.Forget(runtime.Key{Name: name})
		// What removed the directory of a volume that never came to be, or is gone, is done.
		if p, err := c.pods.Pods(namespace).Get(removes + name); err == nil && runtime.Finished(p) {
			return runtime.DeletePod(ctx, c.Deps, p)
		}
		return nil
	}
	if err != nil {
		return err
	}
	if c.written.Behind(v) {
		return nil // it would have its directory removed once more; the change brings it again
	}
	s := VolumeSnapshot{Volume: v, Dir: c.Dir}
	if s.Node, err = c.holder(ctx, v); err != nil {
		return err
	}
	pod := removes + name
	if s.Pod, err = c.pods.Pods(namespace).Get(pod); err != nil {
		s.Pod = nil
	}
	p := decideVolume(s)
	for _, e := range p.Tell {
		c.Event(v, e.Type, e.Reason, e.Message)
	}
	api := c.Client.CoreV1().PersistentVolumes()
	if p.Free {
		next := v.DeepCopy()
		next.Finalizers = slices.DeleteFunc(next.Finalizers, func(f string) bool { return f == finalizer })
		now, err := api.Update(ctx, next, metav1.UpdateOptions{})
		if err != nil {
			return err
		}
		c.written.Wrote(now)
	}
	if p.Delete {
		if err := api.Delete(ctx, v.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &v.UID, ResourceVersion: &v.ResourceVersion}}); err != nil && !apierrors.IsNotFound(err) {
			return err
		}
	}
	return c.work(ctx, p, pod, s.Pod, "")
}

// chosen answers the node that the scheduler chose for a claim that has no volume; nil if it is gone.
func (c *controller) chosen(ctx context.Context, claim *corev1.PersistentVolumeClaim) (*corev1.Node, error) {
	name := claim.Annotations[selectedNote]
	n, err := c.nodes.Get(name)
	if err == nil {
		return n, nil
	}
	if name == "" || claim.Spec.VolumeName != "" || claim.Annotations[claimNote] != Provisioner {
		return nil, nil // it makes no difference
	}
	return c.nodeNow(ctx, metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, name).String()})
}

// holder answers the node that a volume's directory is on; nil if it is gone.
func (c *controller) holder(ctx context.Context, v *corev1.PersistentVolume) (*corev1.Node, error) {
	host := labels.SelectorFromSet(labels.Set{corev1.LabelHostname: hostOf(v)})
	nodes, err := c.nodes.List(host)
	if err != nil {
		return nil, err
	}
	if len(nodes) > 0 {
		return nodes[0], nil
	}
	if n, err := c.nodes.Get(hostOf(v)); err == nil { // a node without that label has its name for it
		return n, nil
	}
	if v.Status.Phase == corev1.VolumeBound && v.DeletionTimestamp == nil {
		return nil, nil // it makes no difference
	}
	n, err := c.nodeNow(ctx, metav1.ListOptions{LabelSelector: host.String()})
	if n != nil || err != nil {
		return n, err
	}
	return c.nodeNow(ctx, metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, hostOf(v)).String()})
}

// nodeNow answers a node as the apiserver has it, nil if there is none. What a cache does not show may only be late: a claim
// would lose the node that was chosen for it, and a directory would be left behind. It lists, since our role may no more.
func (c *controller) nodeNow(ctx context.Context, which metav1.ListOptions) (*corev1.Node, error) {
	list, err := c.Client.CoreV1().Nodes().List(ctx, which)
	if err != nil {
		return nil, fmt.Errorf("asking for a node: %w", err)
	}
	if len(list.Items) == 0 {
		return nil, nil
	}
	return &list.Items[0], nil
}

// work makes and ends pods. name is that of the pod that a plan is about, pod the one that is there.
func (c *controller) work(ctx context.Context, p Plan, name string, pod *corev1.Pod, claim string) error {
	var err error
	switch {
	case p.Make != "":
		err = c.start(ctx, name, p.Node, claim, "mkdir", "-p", "-m", "0777", "/data/"+p.Make)
	case p.Remove != "":
		err = c.start(ctx, name, p.Node, "", "rm", "-rf", "/data/"+p.Remove)
	case p.Undo:
		volume := strings.TrimPrefix(pod.Name, makes)
		// A volume that the cache does not show yet has its directory, and takes it along when it goes: then its event brings the key.
		if _, err = c.Client.CoreV1().PersistentVolumes().Get(ctx, volume, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			return err
		}
		if err = c.start(ctx, removes+volume, pod.Spec.NodeName, "", "rm", "-rf", "/data/"+volume); err == nil {
			err = runtime.DeletePod(ctx, c.Deps, pod)
		}
	case p.Clear:
		err = runtime.DeletePod(ctx, c.Deps, pod)
	}
	if err == nil && p.Fault != "" {
		return errors.New(p.Fault)
	}
	return err
}

// start makes a pod on a node that runs one command beside the node's directories.
func (c *controller) start(ctx context.Context, name, node, claim string, command ...string) error {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: maps.Clone(appLabels), Annotations: map[string]string{ClaimNote: claim}},
		Spec: corev1.PodSpec{
			NodeName: node, RestartPolicy: corev1.RestartPolicyNever, ActiveDeadlineSeconds: new(int64(deadline)), TerminationGracePeriodSeconds: new(int64(0)),
			AutomountServiceAccountToken: new(false), PriorityClassName: "system-node-critical", Tolerations: []corev1.Toleration{{Operator: corev1.TolerationOpExists}},
			Volumes: []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: c.Dir, Type: new(corev1.HostPathDirectoryOrCreate)}}}},
			Containers: []corev1.Container{{
				Name: "directory", Image: c.Image, ImagePullPolicy: corev1.PullIfNotPresent, Command: command, TerminationMessagePolicy: corev1.TerminationMessageFallbackToLogsOnError,
				SecurityContext: &corev1.SecurityContext{RunAsUser: new(int64(0)), ReadOnlyRootFilesystem: new(true)},
				VolumeMounts:    []corev1.VolumeMount{{Name: "data", MountPath: "/data"}},
			}},
		},
	}
	_, err := c.Client.CoreV1().Pods(namespace).Create(ctx, p, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("starting %s on %s: %w", command[0], node, err)
	}
	return nil
}
