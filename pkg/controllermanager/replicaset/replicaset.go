// Package replicaset keeps as many pods as a replica set, or a replication controller, asks for.
//
// The flow: gather the set's pods (adopting those that match and belong to nobody, letting go of those that no longer
// match), decide, then create and delete in parallel and write the status. What was done and is not in the cache yet is
// remembered as expectations, so nothing is done twice.
package replicaset

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	apiruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"

	"github.com/sextant-k8s/sextant/pkg/controllermanager/runtime"
)

// kind is a kind that keeps pods: its objects as replica sets, which they are but for their name.
type kind struct {
	schema.GroupVersionKind
	get   func(key runtime.Key) (*appsv1.ReplicaSet, apiruntime.Object, error)
	in    func(namespace string) ([]*appsv1.ReplicaSet, error)
	write func(ctx context.Context, obj apiruntime.Object, status appsv1.ReplicaSetStatus) error
	of    func(owner types.UID) []*appsv1.ReplicaSet // nil where nobody owns several
}

type controller struct {
	runtime.Deps
	kind   kind
	pods   runtime.Children[corev1.Pod]
	expect runtime.Expectations
}

// New answers the controller of replica sets.
func New(d runtime.Deps) *runtime.Controller {
	sets := d.Informers.Apps().V1().ReplicaSets()
	byOwner := runtime.ByController[appsv1.ReplicaSet](sets.Informer())
	return build(d, sets.Informer(), kind{
		GroupVersionKind: appsv1.SchemeGroupVersion.WithKind("ReplicaSet"), of: byOwner.Of,
		get: func(key runtime.Key) (*appsv1.ReplicaSet, apiruntime.Object, error) {
			set, err := sets.Lister().ReplicaSets(key.Namespace).Get(key.Name)
			return set, set, err
		},
		in: func(namespace string) ([]*appsv1.ReplicaSet, error) {
			return sets.Lister().ReplicaSets(namespace).List(labels.Everything())
		},
		write: func(ctx context.Context, obj apiruntime.Object, status appsv1.ReplicaSetStatus) error {
			next := obj.(*appsv1.ReplicaSet).DeepCopy()
			next.Status = status
			_, err := d.Client.AppsV1().ReplicaSets(next.Namespace).UpdateStatus(ctx, next, metav1.UpdateOptions{})
			return err
		},
	}, &runtime.Controller{
		Name: "replicaset-controller", Account: "replicaset-controller", Queue: "replicaset", For: "as many pods as a replica set asks for",
		Writes: []string{"pods", "replicasets/status"}, Workers: 16,
	})
}

// build makes the controller of one kind.
func build(d runtime.Deps, informer cache.SharedIndexInformer, k kind, out *runtime.Controller) *runtime.Controller {
	pods := d.Informers.Core().V1().Pods().Informer()
	c := &controller{Deps: d, kind: k, pods: runtime.ByController[corev1.Pod](pods)}
	out.Watches = []runtime.Watch{
		{What: strings.ToLower(k.Kind) + "s", Informer: informer, Keys: runtime.Self},
		{What: "pods", Informer: pods, Keys: runtime.Moved(c.setsOf), Born: c.born, Gone: c.gone},
	}
	out.Reconcile = c.reconcile
	return out
}

// setsOf answers whom a pod concerns: its owner, or if it has none every set that would adopt it.
func (c *controller) setsOf(old, obj metav1.Object) []runtime.Key {
	if keys := runtime.Owner(c.kind.Kind)(old, obj); len(keys) > 0 {
		if obj.GetDeletionTimestamp() != nil {
			c.expect.Deleted(keys[0], obj.GetUID())
		}
		return keys
	}
	if metav1.GetControllerOfNoCopy(obj) != nil {
		return nil
	}
	sets, err := c.kind.in(obj.GetNamespace())
	if err != nil {
		return nil
	}
	var keys []runtime.Key
	for _, s := range sets {
		if sel, err := metav1.LabelSelectorAsSelector(s.Spec.Selector); err == nil && !sel.Empty() && sel.Matches(labels.Set(obj.GetLabels())) {
			keys = append(keys, runtime.KeyOf(s))
		}
	}
	return keys
}

func (c *controller) born(obj metav1.Object) {
	for _, k := range runtime.Owner(c.kind.Kind)(nil, obj) {
		c.expect.Created(k, 1)
	}
}

func (c *controller) gone(obj metav1.Object) {
	for _, k := range runtime.Owner(c.kind.Kind)(nil, obj) {
		c.expect.Deleted(k, obj.GetUID())
	}
}

func (c *controller) reconcile(ctx context.Context, key runtime.Key) (time.Duration, error) {
	set, obj, err := c.kind.get(key)
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	s := Snapshot{Set: set, Now: time.Now(), Settled: c.expect.Met(key, time.Now()), Leaving: c.expect.Leaving(key)}
	if s.Pods, err = c.claim(ctx, set); err != nil {
		return 0, err
	}
	if n := set.Spec.Replicas; n == nil || len(s.Pods) > int(*n) { // or none is ended, and nobody asks where others are
		s.Related = c.related(set)
	}
	p := decide(s)
	if p.Create > 0 || len(p.Delete) > 0 {
		slog.Debug("replica set", "key", key.String(), "plan", p.String())
	}
	err = errors.Join(c.create(ctx, key, set, obj, p.Create), c.delete(ctx, key, obj, p.Delete))
	p.failed(s, err)
	if p.Status != nil {
		err = errors.Join(err, c.kind.write(ctx, obj, *p.Status))
	}
	if !s.Settled && p.Again == 0 {
		p.Again = runtime.Patience
	}
	return p.Again, err
}

// claim answers the unfinished pods that the set controls, after adopting and releasing.
func (c *controller) claim(ctx context.Context, set *appsv1.ReplicaSet) ([]*corev1.Pod, error) {
	mine, err := runtime.Claim(ctx, c.Deps, set, c.kind.GroupVersionKind, set.Spec.Selector, c.pods)
	return slices.DeleteFunc(mine, runtime.Finished), err
}

// related counts the active pods per node of every set of the same owner.
func (c *controller) related(set *appsv1.ReplicaSet) map[string]int {
	out := map[string]int{}
	uids := map[types.UID]bool{set.UID: true}
	if ref := metav1.GetControllerOf(set); ref != nil && c.kind.of != nil {
		for _, s := range c.kind.of(ref.UID) {
			uids[s.UID] = true
		}
	}
	for uid := range uids {
		for _, p := range c.pods.Of(uid) {
			if p.DeletionTimestamp == nil {
				out[p.Spec.NodeName]++
			}
		}
	}
	return out
}

// create makes n pods, in batches that double as long as they succeed: when pods cannot be made at all, one finds out.
func (c *controller) create(ctx context.Context, key runtime.Key, set *appsv1.ReplicaSet, obj apiruntime.Object, n int) error {
	if n == 0 {
		return nil
	}
	c.expect.Creates(key, n, time.Now())
	for batch, left := 1, n; left > 0; batch = min(2*batch, runtime.Parallel) {
		size := min(batch, left)
		err := runtime.Each(size, func(int) error {
			p, err := c.Client.CoreV1().Pods(set.Namespace).Create(ctx, newPod(set, c.kind.GroupVersionKind), metav1.CreateOptions{})
			if err != nil {
				c.expect.Created(key, 1)
				c.Event(obj, runtime.Warning, "FailedCreate", "Error creating: "+err.Error())
				return err
			}
			c.Event(obj, runtime.Normal, "SuccessfulCreate", "Created pod: "+p.Name)
			return nil
		})
		left -= size
		if err != nil {
			c.expect.Created(key, left)
			if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
				return nil
			}
			return err
		}
	}
	return nil
}

func (c *controller) delete(ctx context.Context, key runtime.Key, obj apiruntime.Object, pods []*corev1.Pod) error {
	for _, p := range pods {
		c.expect.Deletes(key, p.UID, time.Now())
	}
	return runtime.Each(len(pods), func(i int) error {
		p := pods[i]
		err := c.Client.CoreV1().Pods(p.Namespace).Delete(ctx, p.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &p.UID}})
		if err != nil {
			c.expect.Deleted(key, p.UID)
			if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
				return nil
			}
			c.Event(obj, runtime.Warning, "FailedDelete", "Error deleting: "+err.Error())
			return err
		}
		c.Event(obj, runtime.Normal, "SuccessfulDelete", "Deleted pod: "+p.Name)
		return nil
	})
}
