// Package daemonset keeps one pod on every node that a daemon set is for.
//
// The flow: gather nodes, pods and the current template's revision, decide, create and delete in parallel, write the
// status. Each pod is bound to its node by affinity, so the scheduler checks it like any other. What was created and the
// cache does not show yet is remembered as expectations.
package daemonset

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	appslisters "k8s.io/client-go/listers/apps/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/util/flowcontrol"

	"github.com/sextant-k8s/sextant/pkg/controllermanager/revision"
	"github.com/sextant-k8s/sextant/pkg/controllermanager/runtime"
)

var setKind = appsv1.SchemeGroupVersion.WithKind("DaemonSet")

type controller struct {
	runtime.Deps
	sets      appslisters.DaemonSetLister
	nodes     corelisters.NodeLister
	pods      runtime.Children[corev1.Pod]
	revisions runtime.Children[appsv1.ControllerRevision]
	expect    runtime.Expectations
	backoff   *flowcontrol.Backoff // of failed pods, by set and node
}

// How long a pod that failed is left lying, and how long one that fails again and again.
const (
	firstWait = time.Second
	lastWait  = 15 * time.Minute
)

// New answers the controller.
func New(d runtime.Deps) *runtime.Controller {
	apps, pods, nodes := d.Informers.Apps().V1(), d.Informers.Core().V1().Pods(), d.Informers.Core().V1().Nodes()
	c := &controller{
		Deps: d, sets: apps.DaemonSets().Lister(), nodes: nodes.Lister(), pods: runtime.ByController[corev1.Pod](pods.Informer()),
		revisions: runtime.ByController[appsv1.ControllerRevision](apps.ControllerRevisions().Informer()), backoff: flowcontrol.NewBackOff(firstWait, lastWait),
	}
	return &runtime.Controller{
		Name: "daemonset-controller", Account: "daemon-set-controller", Queue: "daemonset", For: "one pod on every node that a daemon set is for",
		Watches: []runtime.Watch{
			{What: "daemonsets", Informer: apps.DaemonSets().Informer(), Keys: runtime.Self},
			{What: "controllerrevisions", Informer: apps.ControllerRevisions().Informer(), Keys: runtime.Owner("DaemonSet")},
			{What: "pods", Informer: pods.Informer(), Keys: runtime.Moved(func(old, obj metav1.Object) []runtime.Key {
				keys := runtime.Owner("DaemonSet")(old, obj)
				for _, k := range keys {
					if obj.GetDeletionTimestamp() != nil {
						c.expect.Deleted(k, obj.GetUID())
					}
				}
				return keys
			}), Born: func(obj metav1.Object) {
				for _, k := range runtime.Owner("DaemonSet")(nil, obj) {
					c.expect.Created(k, 1)
				}
			}, Gone: func(obj metav1.Object) {
				for _, k := range runtime.Owner("DaemonSet")(nil, obj) {
					c.expect.Deleted(k, obj.GetUID())
				}
			}},
			{What: "nodes", Informer: nodes.Informer(), Keys: c.concerned},
		},
		Writes: []string{"pods", "controllerrevisions", "daemonsets/status"}, Reconcile: c.reconcile,
	}
}

// concerned answers the sets for which a node's change may matter.
func (c *controller) concerned(old, obj metav1.Object) []runtime.Key {
	sets, err := c.sets.List(labels.Everything())
	if err != nil {
		return nil
	}
	n := obj.(*corev1.Node)
	o, updated := old.(*corev1.Node)
	var keys []runtime.Key
	for _, s := range sets {
		run, stay := fits(s, n)
		if updated && o != nil {
			if r, st := fits(s, o); r == run && st == stay {
				continue
			}
		}
		keys = append(keys, runtime.KeyOf(s))
	}
	return keys
}

func (c *controller) reconcile(ctx context.Context, key runtime.Key) (time.Duration, error) {
	set, err := c.sets.DaemonSets(key.Namespace).Get(key.Name)
	if apierrors.IsNotFound(err) || err == nil && (set.Spec.Selector == nil || set.DeletionTimestamp != nil) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	history, err := revision.Ensure(ctx, c.Deps, set, setKind, &set.Spec.Template, c.revisions)
	if err != nil {
		return 0, err
	}
	s := Snapshot{Set: set, Hash: revision.Hash(history.Current), Settled: c.expect.Met(key, time.Now()), Now: time.Now()}
	if s.Pods, err = runtime.Claim(ctx, c.Deps, set, setKind, set.Spec.Selector, c.pods); err != nil {
		return 0, err
	}
	if s.Nodes, err = c.nodes.List(labels.Everything()); err != nil {
		return 0, err
	}
	p := decide(s)
	if text := p.String(); text != "" {
		slog.Debug("daemon set", "key", key.String(), "plan", text)
	}
	again := p.Again
	if wait := c.failed(set, &p); wait > 0 && (again == 0 || wait < again) {
		again = wait
	}
	if !s.Settled && again == 0 {
		again = runtime.Patience
	}
	err = errors.Join(c.delete(ctx, key, set, p.Delete), c.create(ctx, key, set, s.Hash, p.Create))
	if p.Status != nil {
		next := set.DeepCopy()
		next.Status = *p.Status
		_, serr := c.Client.AppsV1().DaemonSets(set.Namespace).UpdateStatus(ctx, next, metav1.UpdateOptions{})
		err = errors.Join(err, serr)
	}
	used := map[string]bool{}
	for _, pod := range s.Pods {
		used[pod.Labels[appsv1.ControllerRevisionHashLabelKey]] = true
	}
	return again, errors.Join(err, revision.Trim(ctx, c.Deps, history, set.Spec.RevisionHistoryLimit, used))
}

func (c *controller) create(ctx context.Context, key runtime.Key, set *appsv1.DaemonSet, hash string, nodes []string) error {
	c.expect.Creates(key, len(nodes), time.Now())
	return runtime.Each(len(nodes), func(i int) error {
		p, err := c.Client.CoreV1().Pods(set.Namespace).Create(ctx, newPod(set, hash, nodes[i]), metav1.CreateOptions{})
		if err != nil {
			c.expect.Created(key, 1)
			if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
				return nil
			}
			c.Event(set, runtime.Warning, "FailedCreate", "Error creating: "+err.Error())
			return err
		}
		c.Event(set, runtime.Normal, "SuccessfulCreate", "Created pod: "+p.Name)
		return nil
	})
}

// failed adds to what is deleted the failed pods whose time it is: one that fails again and again is replaced ever more
// slowly. It answers how long the next has to wait.
func (c *controller) failed(set *appsv1.DaemonSet, p *Plan) (wait time.Duration) {
	now := time.Now()
	for _, f := range p.Failed {
		id := string(set.UID) + "/" + node(f)
		if left := c.backoff.Get(id); c.backoff.IsInBackOffSinceUpdate(id, now) {
			if wait == 0 || left < wait {
				wait = left
			}
			continue
		}
		c.backoff.Next(id, now)
		c.Event(set, runtime.Warning, "FailedDaemonPod", fmt.Sprintf("Found failed daemon pod %s/%s on node %s, will try to kill it", f.Namespace, f.Name, node(f)))
		p.Delete = append(p.Delete, f)
	}
	return wait
}

func (c *controller) delete(ctx context.Context, key runtime.Key, set *appsv1.DaemonSet, pods []*corev1.Pod) error {
	for _, p := range pods {
		c.expect.Deletes(key, p.UID, time.Now())
	}
	return runtime.Each(len(pods), func(i int) error {
		if err := runtime.DeletePod(ctx, c.Deps, pods[i]); err != nil {
			c.expect.Deleted(key, pods[i].UID)
			c.Event(set, runtime.Warning, "FailedDelete", "Error deleting: "+err.Error())
			return err
		}
		c.Event(set, runtime.Normal, "SuccessfulDelete", "Deleted pod: "+pods[i].Name)
		return nil
	})
}

// newPod is a pod for one node: its affinity names that node and nothing else.
func newPod(set *appsv1.DaemonSet, hash, nodeName string) *corev1.Pod {
	t := set.Spec.Template.DeepCopy()
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Namespace: set.Namespace, GenerateName: set.Name + "-", Labels: t.Labels, Annotations: t.Annotations, Finalizers: t.Finalizers,
		OwnerReferences: []metav1.OwnerReference{runtime.OwnedBy(set, setKind)},
	}, Spec: t.Spec}
	metav1.SetMetaDataLabel(&p.ObjectMeta, appsv1.ControllerRevisionHashLabelKey, hash)
	if n := set.Annotations[appsv1.DeprecatedTemplateGeneration]; n != "" {
		metav1.SetMetaDataLabel(&p.ObjectMeta, "pod-template-generation", n)
	}
	p.Spec.Tolerations = append(p.Spec.Tolerations, tolerations(p.Spec.HostNetwork)...)
	term := corev1.NodeSelectorTerm{MatchFields: []corev1.NodeSelectorRequirement{{Key: "metadata.name", Operator: corev1.NodeSelectorOpIn, Values: []string{nodeName}}}}
	if p.Spec.Affinity == nil {
		p.Spec.Affinity = &corev1.Affinity{}
	}
	if p.Spec.Affinity.NodeAffinity == nil {
		p.Spec.Affinity.NodeAffinity = &corev1.NodeAffinity{}
	}
	p.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution = &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{term}}
	return p
}
