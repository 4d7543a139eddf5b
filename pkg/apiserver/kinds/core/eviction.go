package core

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

var budgets = schema.GroupResource{Group: "policy", Resource: "poddisruptionbudgets"}

// maxDisrupted bounds the pods a budget remembers as evicted and not yet seen gone.
const maxDisrupted = 2000

// evict deletes a pod if its disruption budget allows it; what it takes from the budget is counted there first.
func evict(op *kind.Op, name string, body runtime.Object) (runtime.Object, error) {
	e := body.(*policyv1.Eviction)
	if e.Name != "" && e.Name != name {
		return nil, apierrors.NewBadRequest("name in URL does not match name in Eviction object")
	}
	obj, err := op.Env.GetFresh(op.Ctx, pods, op.Namespace, name)
	if err != nil {
		return nil, err
	}
	p := obj.(*corev1.Pod)
	opts := e.DeleteOptions
	if opts == nil {
		opts = &metav1.DeleteOptions{}
	}
	if op.DryRun = op.DryRun || len(opts.DryRun) > 0; op.DryRun {
		opts.DryRun = []string{metav1.DryRunAll}
	}
	if !free(p) {
		if err := spend(op, p); err != nil {
			return nil, err
		}
		// The decision holds for this pod only, not for one that takes its name.
		if opts.Preconditions == nil {
			opts.Preconditions = &metav1.Preconditions{}
		}
		if opts.Preconditions.UID == nil {
			opts.Preconditions.UID = &p.UID
		}
		if !op.DryRun {
			mark(op, p)
		}
	}
	if err := op.Env.Delete(op.Ctx, pods, op.Namespace, name, opts); err != nil {
		return nil, err
	}
	return &metav1.Status{Status: metav1.StatusSuccess, Code: 201}, nil
}

// free tells that a pod's end disrupts nothing.
func free(p *corev1.Pod) bool {
	return p.DeletionTimestamp != nil || p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed || p.Status.Phase == corev1.PodPending
}

// spend takes one disruption from the budget of a pod, if it has one.
func spend(op *kind.Op, p *corev1.Pod) error {
	b, err := budgetOf(op, p)
	if err != nil || b == nil {
		return err
	}
	ready := isReady(p)
	if !ready && b.Spec.UnhealthyPodEvictionPolicy != nil && *b.Spec.UnhealthyPodEvictionPolicy == policyv1.AlwaysAllow {
		return nil
	}
	take := func(obj kind.Object) error {
		b := obj.(*policyv1.PodDisruptionBudget)
		if !ready && b.Status.CurrentHealthy >= b.Status.DesiredHealthy && b.Status.DesiredHealthy > 0 {
			return nil // it does not count as healthy, so the budget loses nothing
		}
		return takeOne(op, b, p.Name)
	}
	if op.DryRun {
		return take(b.DeepCopy())
	}
	_, err = op.Env.Mutate(op.Ctx, budgets, b.Namespace, b.Name, take)
	return err
}

// takeOne counts one disruption in the budget's status, or says why not.
func takeOne(op *kind.Op, b *policyv1.PodDisruptionBudget, pod string) error {
	if b.Status.ObservedGeneration < b.Generation {
		return refuse("The disruption budget %s is still being processed by the server.", b.Name)
	}
	if b.Status.DisruptionsAllowed < 0 {
		return apierrors.NewForbidden(budgets, b.Name, fmt.Errorf("pdb disruptions allowed is negative"))
	}
	if len(b.Status.DisruptedPods) > maxDisrupted {
		return apierrors.NewForbidden(budgets, b.Name, fmt.Errorf("DisruptedPods map too big - too many evictions not confirmed by PDB controller"))
	}
	if b.Status.DisruptionsAllowed == 0 {
		return refuse("The disruption budget %s needs %d healthy pods and has %d currently", b.Name, b.Status.DesiredHealthy, b.Status.CurrentHealthy)
	}
	b.Status.DisruptionsAllowed--
	if b.Status.DisruptedPods == nil {
		b.Status.DisruptedPods = map[string]metav1.Time{}
	}
	b.Status.DisruptedPods[pod] = metav1.NewTime(op.Now.Truncate(1e9))
	return nil
}

func refuse(format string, args ...any) error {
	err := apierrors.NewTooManyRequests("Cannot evict pod as it would violate the pod's disruption budget.", 0)
	err.ErrStatus.Details.Causes = append(err.ErrStatus.Details.Causes, metav1.StatusCause{Type: policyv1.DisruptionBudgetCause, Message: fmt.Sprintf(format, args...)})
	return err
}

// budgetOf finds the one budget that selects the pod.
func budgetOf(op *kind.Op, p *corev1.Pod) (*policyv1.PodDisruptionBudget, error) {
	objs, err := op.Env.ListFresh(op.Ctx, budgets, p.Namespace)
	if err != nil {
		return nil, err
	}
	var found *policyv1.PodDisruptionBudget
	for _, o := range objs {
		b := o.(*policyv1.PodDisruptionBudget)
		sel, err := metav1.LabelSelectorAsSelector(b.Spec.Selector)
		if err != nil || !sel.Matches(labels.Set(p.Labels)) {
			continue
		}
		if found != nil {
			return nil, apierrors.NewInternalError(fmt.Errorf("This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."))
		}
		found = b
	}
	return found, nil
}

// mark says in the pod's status why it goes.
func mark(op *kind.Op, p *corev1.Pod) {
	_, err := op.Env.Mutate(op.Ctx, pods, p.Namespace, p.Name, func(obj kind.Object) error {
		now := obj.(*corev1.Pod)
		if now.UID != p.UID {
			return fmt.Errorf("pod %s was replaced", p.Name)
		}
		now.Status.Conditions = append(now.Status.Conditions, corev1.PodCondition{
			Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: "EvictionByEvictionAPI",
			Message: "Eviction API: evicting", LastTransitionTime: metav1.NewTime(op.Now.Truncate(1e9)),
		})
		return nil
	})
	if err != nil && !apierrors.IsNotFound(err) {
		op.Warn("the pod's DisruptionTarget condition could not be written: " + err.Error())
	}
}

func isReady(p *corev1.Pod) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}
