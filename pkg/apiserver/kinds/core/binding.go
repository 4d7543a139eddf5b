package core

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

var pods = schema.GroupResource{Resource: "pods"}

// Binding is the row of bindings: a pod's binding by its old name.
func Binding() *kind.Def {
	return kind.Row(kind.Def{
		Kind: "Binding", Resource: "bindings", Namespaced: true, Verbs: []string{"create"},
		Virtual: &kind.Virtual{Create: func(op *kind.Op, obj kind.Object) (kind.Object, error) {
			_, err := bind(op, obj.GetName(), obj)
			return nil, err
		}},
	}, kind.In[corev1.Binding, corev1.Binding](corev1.SchemeGroupVersion, nil))
}

// bind gives a pod its node, once.
func bind(op *kind.Op, name string, body runtime.Object) (runtime.Object, error) {
	b := body.(*corev1.Binding)
	if b.Name != "" && b.Name != name {
		return nil, apierrors.NewBadRequest("name in URL does not match name in Binding object")
	}
	var errs field.ErrorList
	target := field.NewPath("target")
	if b.Target.Kind != "" && b.Target.Kind != "Node" {
		errs = append(errs, field.NotSupported(target.Child("kind"), b.Target.Kind, []string{"Node", "<empty>"}))
	}
	if b.Target.Name == "" {
		errs = append(errs, field.Required(target.Child("name"), ""))
	}
	if len(errs) > 0 {
		return nil, errs.ToAggregate()
	}
	conflict := func(format string, args ...any) error {
		return apierrors.NewConflict(schema.GroupResource{Resource: "pods/binding"}, name, fmt.Errorf(format, args...))
	}
	assign := func(obj kind.Object) error {
		p := obj.(*corev1.Pod)
		switch {
		case b.UID != "" && b.UID != p.UID:
			return conflict("Precondition failed: UID in precondition: %v, UID in object meta: %v", b.UID, p.UID)
		case p.DeletionTimestamp != nil:
			return conflict("pod %s is being deleted, cannot be assigned to a host", p.Name)
		case p.Spec.NodeName != "":
			return conflict("pod %v is already assigned to node %q", p.Name, p.Spec.NodeName)
		case len(p.Spec.SchedulingGates) > 0:
			return conflict("pod %v has non-empty .spec.schedulingGates", p.Name)
		}
		// The generation counts what users ask for; where the pod runs is not among that.
		p.Spec.NodeName = b.Target.Name
		for k, v := range b.Annotations {
			metav1.SetMetaDataAnnotation(&p.ObjectMeta, k, v)
		}
		for k, v := range b.Labels {
			metav1.SetMetaDataLabel(&p.ObjectMeta, k, v)
		}
		scheduled(p, op)
		return nil
	}
	var err error
	if op.DryRun {
		var now kind.Object
		if now, err = op.Env.GetFresh(op.Ctx, pods, op.Namespace, name); err == nil {
			err = assign(now) // it is this call's own copy
		}
	} else {
		_, err = op.Env.Mutate(op.Ctx, pods, op.Namespace, name, assign)
	}
	if err != nil {
		return nil, err
	}
	return &metav1.Status{Status: metav1.StatusSuccess, Code: 201}, nil
}

// scheduled sets the condition that says the pod has a node.
func scheduled(p *corev1.Pod, op *kind.Op) {
	c := corev1.PodCondition{Type: corev1.PodScheduled, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(op.Now.Truncate(1e9))}
	for i, have := range p.Status.Conditions {
		if have.Type == c.Type {
			p.Status.Conditions[i] = c
			return
		}
	}
	p.Status.Conditions = append(p.Status.Conditions, c)
}
