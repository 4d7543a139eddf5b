package plugins

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	nodev1 "k8s.io/api/node/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sextant-k8s/sextant/pkg/apiserver/admission"
	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

var (
	storageClasses = schema.GroupResource{Group: storagev1.GroupName, Resource: "storageclasses"}
	ingressClasses = schema.GroupResource{Group: networkingv1.GroupName, Resource: "ingressclasses"}
	runtimeClasses = schema.GroupResource{Group: nodev1.GroupName, Resource: "runtimeclasses"}
)

const (
	defaultStorageNote     = "storageclass.kubernetes.io/is-default-class"
	defaultStorageBetaNote = "storageclass.beta.kubernetes.io/is-default-class"
)

// newest answers which of the marked classes is meant: the one made last, by name among equals; nil if none is marked.
func newest(classes []kind.Object, marks ...string) (found kind.Object) {
	for _, c := range classes {
		is := false
		for _, m := range marks {
			is = is || c.GetAnnotations()[m] == "true"
		}
		if !is {
			continue
		}
		if found == nil {
			found = c
			continue
		}
		a, b := c.GetCreationTimestamp(), found.GetCreationTimestamp()
		if a.After(b.Time) || a.Equal(&b) && c.GetName() < found.GetName() {
			found = c
		}
	}
	return found
}

// DefaultStorageClass gives a claim that names no class the default one.
var DefaultStorageClass = admission.Plugin{Name: "DefaultStorageClass", Mutate: func(ctx context.Context, r *admission.Request) error {
	c, _ := r.Object.(*corev1.PersistentVolumeClaim)
	if c == nil || r.Verb != admission.Create || r.Sub != "" || c.Spec.StorageClassName != nil {
		return nil
	}
	if _, ok := c.Annotations[corev1.BetaStorageClassAnnotation]; ok {
		return nil
	}
	classes, err := r.Env.List(ctx, storageClasses, "")
	if err != nil {
		return err
	}
	if found := newest(classes, defaultStorageNote, defaultStorageBetaNote); found != nil {
		c.Spec.StorageClassName = new(found.GetName())
	}
	return nil
}}

// DefaultIngressClass gives an ingress that names no class the default one.
var DefaultIngressClass = admission.Plugin{Name: "DefaultIngressClass", Mutate: func(ctx context.Context, r *admission.Request) error {
	i, _ := r.Object.(*networkingv1.Ingress)
	if i == nil || r.Verb != admission.Create || r.Sub != "" || i.Spec.IngressClassName != nil {
		return nil
	}
	if _, ok := i.Annotations["kubernetes.io/ingress.class"]; ok {
		return nil
	}
	classes, err := r.Env.List(ctx, ingressClasses, "")
	if err != nil {
		return err
	}
	if found := newest(classes, networkingv1.AnnotationIsDefaultIngressClass); found != nil {
		i.Spec.IngressClassName = new(found.GetName())
	}
	return nil
}}

// RuntimeClass adds what a pod's runtime costs and where it runs.
var RuntimeClass = admission.Plugin{Name: "RuntimeClass",
	Mutate: func(ctx context.Context, r *admission.Request) error {
		p := newPod(r)
		if p == nil {
			return nil
		}
		class, err := runtimeOf(ctx, r, p)
		if class == nil || err != nil {
			return err
		}
		if class.Overhead != nil {
			if p.Spec.Overhead != nil && !equality.Semantic.DeepEqual(p.Spec.Overhead, class.Overhead.PodFixed) {
				return fmt.Errorf("pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead")
			}
			p.Spec.Overhead = class.Overhead.PodFixed.DeepCopy()
		}
		if class.Scheduling == nil {
			return nil
		}
		for k, v := range class.Scheduling.NodeSelector {
			if had, ok := p.Spec.NodeSelector[k]; ok && had != v {
				return fmt.Errorf("conflict: runtimeClass.scheduling.nodeSelector[%s] = %s; pod.spec.nodeSelector[%s] = %s", k, v, k, had)
			}
			if p.Spec.NodeSelector == nil {
				p.Spec.NodeSelector = map[string]string{}
			}
			p.Spec.NodeSelector[k] = v
		}
		for _, t := range class.Scheduling.Tolerations {
			if !hasToleration(p, t) {
				p.Spec.Tolerations = append(p.Spec.Tolerations, *t.DeepCopy())
			}
		}
		return nil
	},
	Validate: func(ctx context.Context, r *admission.Request) error {
		p := newPod(r)
		if p == nil || p.Spec.Overhead == nil {
			return nil
		}
		class, err := runtimeOf(ctx, r, p)
		if err != nil {
			return err
		}
		if class == nil || class.Overhead == nil {
			return fmt.Errorf("pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead")
		}
		return nil
	},
}

// runtimeOf answers the runtime class that a pod names, nil if it names none.
func runtimeOf(ctx context.Context, r *admission.Request, p *corev1.Pod) (*nodev1.RuntimeClass, error) {
	if p.Spec.RuntimeClassName == nil || *p.Spec.RuntimeClassName == "" {
		return nil, nil
	}
	name := *p.Spec.RuntimeClassName
	obj, err := r.Env.Get(ctx, runtimeClasses, "", name)
	if apierrors.IsNotFound(err) {
		obj, err = r.Env.GetFresh(ctx, runtimeClasses, "", name)
	}
	if apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("pod rejected: RuntimeClass %q not found", name)
	}
	if err != nil {
		return nil, err
	}
	return obj.(*nodev1.RuntimeClass), nil
}

func hasToleration(p *corev1.Pod, t corev1.Toleration) bool {
	for i := range p.Spec.Tolerations {
		if equality.Semantic.DeepEqual(p.Spec.Tolerations[i], t) {
			return true
		}
	}
	return false
}
