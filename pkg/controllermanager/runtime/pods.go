package runtime

import (
	"context"
	"fmt"
	"maps"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
)

// Parallel bounds the writes of one reconcile that are on their way at once.
const Parallel = 64

// Each calls f for every number below n, many at once, and answers the first error.
func Each(n int, f func(i int) error) error {
	var wg sync.WaitGroup
	var mu sync.Mutex
	var first error
	places := make(chan struct{}, Parallel)
	for i := range n {
		places <- struct{}{}
		wg.Go(func() {
			defer func() { <-places }()
			if err := f(i); err != nil {
				mu.Lock()
				defer mu.Unlock()
				if first == nil {
					first = err
				}
			}
		})
	}
	wg.Wait()
	return first
}

// OwnedBy is the reference of a controlling owner.
func OwnedBy(o metav1.Object, kind schema.GroupVersionKind) metav1.OwnerReference {
	return *metav1.NewControllerRef(o, kind)
}

// Claim answers the pods that an owner controls, after adopting those that match and belong to nobody and letting go of
// those that no longer match.
func Claim(ctx context.Context, d Deps, owner metav1.Object, kind schema.GroupVersionKind, selector *metav1.LabelSelector, pods Children[corev1.Pod]) ([]*corev1.Pod, error) {
	sel, err := metav1.LabelSelectorAsSelector(selector)
	if err != nil {
		return nil, fmt.Errorf("the selector cannot be read: %w", err)
	}
	alive := owner.GetDeletionTimestamp() == nil
	var mine []*corev1.Pod
	for _, p := range pods.Of(owner.GetUID()) {
		if sel.Matches(labels.Set(p.Labels)) || !alive {
			mine = append(mine, p)
			continue
		}
		patch := fmt.Sprintf(`{"metadata":{"ownerReferences":[{"$patch":"delete","uid":%q}],"uid":%q}}`, owner.GetUID(), p.UID)
		if err := patchPod(ctx, d, p, patch); err != nil {
			return nil, err
		}
	}
	if !alive {
		return mine, nil
	}
	for _, p := range pods.Orphans(owner.GetNamespace()) {
		if !sel.Matches(labels.Set(p.Labels)) || p.DeletionTimestamp != nil || p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed {
			continue
		}
		patch := fmt.Sprintf(`{"metadata":{"ownerReferences":[{"apiVersion":%q,"kind":%q,"name":%q,"uid":%q,"controller":true,"blockOwnerDeletion":true}],"uid":%q}}`,
			kind.GroupVersion(), kind.Kind, owner.GetName(), owner.GetUID(), p.UID)
		if err := patchPod(ctx, d, p, patch); err != nil {
			return nil, err
		}
		mine = append(mine, p)
	}
	return mine, nil
}

func patchPod(ctx context.Context, d Deps, p *corev1.Pod, patch string) error {
	_, err := d.Client.CoreV1().Pods(p.Namespace).Patch(ctx, p.Name, types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// DeletePod deletes one pod, and no other that takes its name.
func DeletePod(ctx context.Context, d Deps, p *corev1.Pod) error {
	err := d.Client.CoreV1().Pods(p.Namespace).Delete(ctx, p.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &p.UID}})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil
	}
	return err
}

// Ready tells whether a pod serves, and since when.
func Ready(p *corev1.Pod) (metav1.Time, bool) {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.LastTransitionTime, c.Status == corev1.ConditionTrue
		}
	}
	return metav1.Time{}, false
}

// Moved is keys for who keeps a number of pods: whose work is as much as there are pods of one owner, and who goes by whose a pod is,
// where it stands, how far it is and whether it is about to go. Other changes, which are many, bring no keys.
func Moved(keys func(old, obj metav1.Object) []Key) func(old, obj metav1.Object) []Key {
	return func(old, obj metav1.Object) []Key {
		out := keys(old, obj) // which may note what it sees
		if o, updated := old.(*corev1.Pod); updated && !moved(o, obj.(*corev1.Pod)) {
			return nil
		}
		return out
	}
}

func moved(old, p *corev1.Pod) bool {
	before, was := Ready(old)
	since, is := Ready(p)
	return p.DeletionTimestamp != nil || was != is || !before.Equal(&since) || old.UID != p.UID || old.Status.Phase != p.Status.Phase ||
		old.Spec.NodeName != p.Spec.NodeName || !maps.Equal(old.Labels, p.Labels) || controllerOf(old) != controllerOf(p)
}

func controllerOf(p *corev1.Pod) types.UID {
	if ref := metav1.GetControllerOfNoCopy(p); ref != nil {
		return ref.UID
	}
	return ""
}

// Told tells whether a pod says already that it is taken away, and for a reason: a life that ended before it took it has told it.
func Told(p *corev1.Pod, reason string) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.DisruptionTarget {
			return c.Status == corev1.ConditionTrue && c.Reason == reason
		}
	}
	return false
}

// Finished tells whether a pod has ended for good.
func Finished(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
}
