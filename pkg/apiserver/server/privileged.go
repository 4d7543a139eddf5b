package server

import (
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

// forbidPrivileged makes every row that holds pods refuse privileged containers.
func forbidPrivileged(defs []*kind.Def) {
	for _, d := range defs {
		if d.Check == nil || d.Virtual != nil {
			continue
		}
		if _, at := podSpec(d.Storage.New()); at == nil {
			continue
		}
		check := d.Check
		d.Check = func(op *kind.Op, obj, old kind.Object) field.ErrorList {
			errs := check(op, obj, old)
			if old != nil && len(privileged(old)) > 0 {
				return errs // it was let in before the flag was set; nothing else may be stopped by that
			}
			return append(errs, privileged(obj)...)
		}
	}
}

func privileged(obj kind.Object) field.ErrorList {
	spec, at := podSpec(obj)
	if spec == nil {
		return nil
	}
	var errs field.ErrorList
	ask := func(list string, n int, c *corev1.SecurityContext) {
		if c != nil && c.Privileged != nil && *c.Privileged {
			errs = append(errs, field.Forbidden(at.Child(list).Index(n).Child("securityContext", "privileged"), "disallowed by cluster policy"))
		}
	}
	for n, c := range spec.InitContainers {
		ask("initContainers", n, c.SecurityContext)
	}
	for n, c := range spec.Containers {
		ask("containers", n, c.SecurityContext)
	}
	for n, c := range spec.EphemeralContainers {
		ask("ephemeralContainers", n, c.SecurityContext)
	}
	return errs
}

// podSpec answers the pod that an object describes, nil if it says none, and where; the place is nil for a kind that never
// describes one.
func podSpec(obj kind.Object) (*corev1.PodSpec, *field.Path) {
	template := field.NewPath("spec", "template", "spec")
	switch o := obj.(type) {
	case *corev1.Pod:
		return &o.Spec, field.NewPath("spec")
	case *corev1.PodTemplate:
		return &o.Template.Spec, field.NewPath("template", "spec")
	case *corev1.ReplicationController:
		if o.Spec.Template == nil {
			return nil, template
		}
		return &o.Spec.Template.Spec, template
	case *appsv1.ReplicaSet:
		return &o.Spec.Template.Spec, template
	case *appsv1.Deployment:
		return &o.Spec.Template.Spec, template
	case *appsv1.DaemonSet:
		return &o.Spec.Template.Spec, template
	case *appsv1.StatefulSet:
		return &o.Spec.Template.Spec, template
	case *batchv1.Job:
		return &o.Spec.Template.Spec, template
	case *batchv1.CronJob:
		return &o.Spec.JobTemplate.Spec.Template.Spec, field.NewPath("spec", "jobTemplate", "spec", "template", "spec")
	}
	return nil, nil
}
