// Package podgc removes pods that nobody will ever end: those of nodes that are gone, finished ones beyond a bound, and
// deleted ones that never got a node.
//
// One key stands for everything; Reconcile looks at all pods every so often. When a node was first missed is the only
// state; one worker runs.
package podgc

import (
	"context"
	"errors"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/sextant-k8s/sextant/pkg/controllermanager/runtime"
)

const (
	every = 20 * time.Second
	// quarantine is how long a node must have been missed before its pods are removed.
	quarantine = 40 * time.Second
)

// New answers the controller; threshold bounds the finished pods that are kept, 0 = any number.
func New(d runtime.Deps, threshold int) *runtime.Controller {
	pods, nodes := d.Informers.Core().V1().Pods(), d.Informers.Core().V1().Nodes()
	missed := map[string]time.Time{}
	return &runtime.Controller{
		Name: "pod-garbage-collector-controller", Account: "pod-garbage-collector", Queue: "orphaned_pods_nodes", For: "pods that nobody else will remove", Workers: 1, Every: every,
		Watches: []runtime.Watch{
			{What: "pods", Informer: pods.Informer(), Keys: func(metav1.Object, metav1.Object) []runtime.Key { return nil }},
			{What: "nodes", Informer: nodes.Informer(), Keys: func(metav1.Object, metav1.Object) []runtime.Key { return nil }},
		},
		Writes: []string{"pods"},
		Reconcile: func(ctx context.Context, _ runtime.Key) (time.Duration, error) {
			all, err := pods.Lister().List(labels.Everything())
			if err != nil {
				return 0, err
			}
			known, err := nodes.Lister().List(labels.Everything())
			if err != nil {
				return 0, err
			}
			names := map[string]bool{}
			for _, n := range known {
				names[n.Name] = true
				delete(missed, n.Name)
			}
			var errs []error
			for _, p := range decide(all, names, missed, time.Now(), threshold) {
				err := d.Client.CoreV1().Pods(p.Namespace).Delete(ctx, p.Name, metav1.DeleteOptions{GracePeriodSeconds: new(int64(0)), Preconditions: &metav1.Preconditions{UID: &p.UID}})
				if err != nil && !apierrors.IsNotFound(err) {
					errs = append(errs, err)
				}
			}
			return 0, errors.Join(errs...)
		},
	}
}

// decide answers the pods to remove. missed remembers when each missing node was first missed.
func decide(pods []*corev1.Pod, nodes map[string]bool, missed map[string]time.Time, now time.Time, threshold int) []*corev1.Pod {
	var out, finished []*corev1.Pod
	for _, p := range pods {
		done := p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
		switch {
		case p.Spec.NodeName != "" && !nodes[p.Spec.NodeName]:
			since, ok := missed[p.Spec.NodeName]
			if !ok {
				missed[p.Spec.NodeName] = now
			} else if now.Sub(since) >= quarantine {
				out = append(out, p)
			}
		case p.DeletionTimestamp != nil && p.Spec.NodeName == "":
			out = append(out, p)
		case done && p.DeletionTimestamp == nil:
			finished = append(finished, p)
		}
	}
	if extra := len(finished) - threshold; threshold > 0 && extra > 0 {
		slices.SortStableFunc(finished, func(a, b *corev1.Pod) int { return a.CreationTimestamp.Compare(b.CreationTimestamp.Time) })
		out = append(out, finished[:extra]...)
	}
	return out
}
