package plugins

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sextant-k8s/sextant/pkg/apiserver/admission"
)

// newPod answers the pod that a request makes, nil if it makes none.
func newPod(r *admission.Request) *corev1.Pod {
	if r.Verb != admission.Create || r.Sub != "" {
		return nil
	}
	p, _ := r.Object.(*corev1.Pod)
	return p
}

// grace is how long a pod stays on a node that is in trouble, in seconds.
const grace = 300

// DefaultTolerationSeconds lets pods stay for a while on nodes that are not ready or cannot be reached.
var DefaultTolerationSeconds = admission.Plugin{Name: "DefaultTolerationSeconds", Mutate: func(_ context.Context, r *admission.Request) error {
	p, _ := r.Object.(*corev1.Pod)
	if p == nil || r.Sub != "" || r.Verb != admission.Create && r.Verb != admission.Update {
		return nil
	}
	for _, key := range []string{corev1.TaintNodeNotReady, corev1.TaintNodeUnreachable} {
		if !tolerates(p, key) {
			p.Spec.Tolerations = append(p.Spec.Tolerations, corev1.Toleration{
				Key: key, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: new(int64(grace)),
			})
		}
	}
	return nil
}}

func tolerates(p *corev1.Pod, key string) bool {
	for _, t := range p.Spec.Tolerations {
		if (t.Key == key || t.Key == "") && (t.Effect == corev1.TaintEffectNoExecute || t.Effect == "") {
			return true
		}
	}
	return false
}

var priorityClasses = schema.GroupResource{Group: schedulingv1.GroupName, Resource: "priorityclasses"}

// Priority turns the name of a priority class into the number that pods are ordered by.
var Priority = admission.Plugin{Name: "Priority", Mutate: func(ctx context.Context, r *admission.Request) error {
	p := newPod(r)
	if p == nil {
		return nil
	}
	class, err := classOf(ctx, r, p)
	if err != nil {
		return err
	}
	var value int32
	policy := corev1.PreemptLowerPriority
	if class != nil {
		value = class.Value
		p.Spec.PriorityClassName = class.Name
		if class.PreemptionPolicy != nil {
			policy = *class.PreemptionPolicy
		}
	}
	if p.Spec.Priority != nil && *p.Spec.Priority != value {
		return fmt.Errorf("the integer value of priority (%d) must not be provided in pod spec; priority admission controller computed %d from the given PriorityClass name", *p.Spec.Priority, value)
	}
	p.Spec.Priority = &value
	if p.Spec.PreemptionPolicy == nil {
		p.Spec.PreemptionPolicy = &policy
	} else if *p.Spec.PreemptionPolicy != policy {
		return fmt.Errorf("the string value of PreemptionPolicy (%s) must not be provided in pod spec; priority admission controller computed %s from the given PriorityClass name", *p.Spec.PreemptionPolicy, policy)
	}
	return nil
}}

// classOf answers the class that a pod names, or the cluster's default one; nil is priority 0.
func classOf(ctx context.Context, r *admission.Request, p *corev1.Pod) (*schedulingv1.PriorityClass, error) {
	if p.Spec.PriorityClassName != "" {
		obj, err := r.Env.Get(ctx, priorityClasses, "", p.Spec.PriorityClassName)
		if apierrors.IsNotFound(err) {
			obj, err = r.Env.GetFresh(ctx, priorityClasses, "", p.Spec.PriorityClassName)
		}
		if apierrors.IsNotFound(err) {
			return nil, fmt.Errorf("no PriorityClass with name %v was found", p.Spec.PriorityClassName)
		}
		if err != nil {
			return nil, err
		}
		return obj.(*schedulingv1.PriorityClass), nil
	}
	objs, err := r.Env.List(ctx, priorityClasses, "")
	if err != nil {
		return nil, err
	}
	var found *schedulingv1.PriorityClass
	for _, o := range objs {
		if c := o.(*schedulingv1.PriorityClass); c.GlobalDefault && (found == nil || c.Value < found.Value) {
			found = c
		}
	}
	return found, nil
}
