// Package podgc removes pods that nobody will ever end: those of nodes that are gone or out of service, finished ones beyond
// a bound, and deleted ones that never got a node.
//
// One key stands for everything; Reconcile looks at all pods every so often, and decide says which go. A pod that had not
// ended is first said to have failed, since no kubelet will say so. When a node was first missed is the only state; one
// worker runs.
package podgc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	corelisters "k8s.io/client-go/listers/core/v1"

	"github.com/sextant-k8s/sextant/pkg/controllermanager/runtime"
)

const every = 20 * time.Second

type controller struct {
	runtime.Deps
	pods      corelisters.PodLister
	nodes     corelisters.NodeLister
	threshold int
	missed    map[string]time.Time // when each missing node was first missed
}

// New answers the controller; threshold bounds the finished pods that are kept, 0 = any number.
func New(d runtime.Deps, threshold int) *runtime.Controller {
	core := d.Informers.Core().V1()
	c := &controller{Deps: d, pods: core.Pods().Lister(), nodes: core.Nodes().Lister(), threshold: threshold, missed: map[string]time.Time{}}
	return &runtime.Controller{
		Name: "pod-garbage-collector-controller", Account: "pod-garbage-collector", Queue: "orphaned_pods_nodes", For: "pods that nobody else will remove", Workers: 1, Every: every,
		Watches: []runtime.Watch{
			{What: "pods", Informer: core.Pods().Informer(), Keys: func(metav1.Object, metav1.Object) []runtime.Key { return nil }},
			{What: "nodes", Informer: core.Nodes().Informer(), Keys: func(metav1.Object, metav1.Object) []runtime.Key { return nil }},
		},
		Writes: []string{"pods", "pods/status"}, Reconcile: c.reconcile,
	}
}

func (c *controller) reconcile(ctx context.Context, _ runtime.Key) (time.Duration, error) {
	pods, err := c.pods.List(labels.Everything())
	if err != nil {
		return 0, err
	}
	known, err := c.nodes.List(labels.Everything())
	if err != nil {
		return 0, err
	}
	nodes := map[string]*corev1.Node{}
	for _, n := range known {
		nodes[n.Name] = n
	}
	there := map[string]bool{} // nodes that were asked for: whether the cache is behind
	var errs []error
	for _, r := range decide(pods, nodes, c.missed, time.Now(), c.threshold) {
		name := r.pod.Spec.NodeName
		if _, asked := there[name]; r.lost && !asked {
			_, err := c.Client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
			there[name] = !apierrors.IsNotFound(err) // whoever cannot be asked for may be there
			if err != nil && there[name] {
				errs = append(errs, fmt.Errorf("asking whether node %s is gone: %w", name, err))
			}
		}
		if r.lost && there[name] {
			delete(c.missed, name)
			continue
		}
		if err := c.remove(ctx, r); err != nil && !apierrors.IsNotFound(err) {
			errs = append(errs, err)
		}
	}
	return 0, errors.Join(errs...)
}

// remove ends a pod for good.
func (c *controller) remove(ctx context.Context, r removal) error {
	api := c.Client.CoreV1().Pods(r.pod.Namespace)
	if !finished(r.pod) {
		status := map[string]any{"phase": corev1.PodFailed}
		if r.lost {
			status["conditions"] = []corev1.PodCondition{{
				Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: "DeletionByPodGC", Message: "PodGC: node no longer exists",
				ObservedGeneration: r.pod.Generation, LastTransitionTime: metav1.Now(),
			}}
		}
		body, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": r.pod.UID}, "status": status})
		if err != nil {
			return err
		}
		if _, err := api.Patch(ctx, r.pod.Name, types.StrategicMergePatchType, body, metav1.PatchOptions{}, "status"); err != nil {
			return fmt.Errorf("saying that %s/%s failed: %w", r.pod.Namespace, r.pod.Name, err)
		}
	}
	return api.Delete(ctx, r.pod.Name, metav1.DeleteOptions{GracePeriodSeconds: new(int64(0)), Preconditions: &metav1.Preconditions{UID: &r.pod.UID}})
}
