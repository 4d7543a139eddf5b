package plugins

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	podresource "k8s.io/component-helpers/resource"

	"github.com/sextant-k8s/sextant/pkg/apiserver/admission"
)

// The annotations of a namespace that say which tolerations its pods get, and which they may have.
const (
	givenTolerations   = "scheduler.alpha.kubernetes.io/defaultTolerations"
	allowedTolerations = "scheduler.alpha.kubernetes.io/tolerationsWhitelist"
)

// PodTolerationRestriction gives pods the tolerations of their namespace, or the cluster's, and lets them have no others
// than are allowed there.
func PodTolerationRestriction(c Configuration) (admission.Plugin, error) {
	const name = "PodTolerationRestriction"
	var conf struct {
		typed
		Default   []corev1.Toleration `json:"default"`
		Whitelist []corev1.Toleration `json:"whitelist"`
	}
	if _, err := c.read(name, &conf, &conf.typed, "Configuration", "podtolerationrestriction.admission.k8s.io/v1alpha1"); err != nil {
		return admission.Plugin{}, err
	}
	return admission.Plugin{
		Name: name,
		Mutate: func(ctx context.Context, r *admission.Request) error {
			p := writtenPod(r)
			if p == nil {
				return nil
			}
			if r.Verb == admission.Create {
				given, err := tolerationsOf(ctx, r, givenTolerations, conf.Default)
				if err != nil {
					return err
				}
				p.Spec.Tolerations = mergeTolerations(given, p.Spec.Tolerations)
			}
			if !qosBestEffort(p) {
				p.Spec.Tolerations = mergeTolerations(p.Spec.Tolerations, []corev1.Toleration{
					{Key: corev1.TaintNodeMemoryPressure, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoSchedule},
				})
			}
			return nil
		},
		Validate: func(ctx context.Context, r *admission.Request) error {
			p := writtenPod(r)
			if p == nil {
				return nil
			}
			allowed, err := tolerationsOf(ctx, r, allowedTolerations, conf.Whitelist)
			if err != nil || len(allowed) == 0 {
				return err
			}
			for _, t := range p.Spec.Tolerations {
				if !slices.ContainsFunc(allowed, func(a corev1.Toleration) bool { return includes(a, t) }) {
					return errors.New("pod tolerations (possibly merged with namespace default tolerations) conflict with its namespace whitelist")
				}
			}
			return nil
		},
	}, nil
}

// tolerationsOf answers what an annotation of the request's namespace says, the cluster's if there is none.
func tolerationsOf(ctx context.Context, r *admission.Request, note string, cluster []corev1.Toleration) (out []corev1.Toleration, err error) {
	obj, err := r.Env.Get(ctx, namespaces, "", r.Namespace)
	if apierrors.IsNotFound(err) {
		obj, err = r.Env.GetFresh(ctx, namespaces, "", r.Namespace)
	}
	if err != nil {
		return nil, err
	}
	text, ok := obj.GetAnnotations()[note]
	switch {
	case !ok:
		return cluster, nil
	case text == "":
		return []corev1.Toleration{}, nil
	}
	if err := json.Unmarshal([]byte(text), &out); err != nil {
		return nil, fmt.Errorf("the annotation %s of namespace %s: %w", note, r.Namespace, err)
	}
	return out, nil
}

// qosBestEffort tells whether no container of a pod asks for, or is limited in, cpu or memory.
func qosBestEffort(p *corev1.Pod) bool {
	some := func(l corev1.ResourceList) bool { return l.Cpu().Sign() > 0 || l.Memory().Sign() > 0 }
	return !some(podresource.PodRequests(p, podresource.PodResourcesOptions{})) && !some(podresource.PodLimits(p, podresource.PodResourcesOptions{}))
}

// mergeTolerations answers both lists without those that another includes.
func mergeTolerations(first, second []corev1.Toleration) (out []corev1.Toleration) {
	all := slices.Concat(first, second)
	for i, t := range all {
		included := slices.ContainsFunc(out, func(o corev1.Toleration) bool { return includes(o, t) }) ||
			slices.ContainsFunc(all[i+1:], func(o corev1.Toleration) bool { return !equality.Semantic.DeepEqual(o, t) && includes(o, t) })
		if !included {
			out = append(out, t)
		}
	}
	return out
}

// includes tells whether one toleration tolerates all that another does.
func includes(a, b corev1.Toleration) bool {
	switch {
	case equality.Semantic.DeepEqual(a, b):
		return true
	case a.Key != b.Key && (a.Key != "" || a.Operator != corev1.TolerationOpExists), a.Effect != b.Effect && a.Effect != "":
		return false
	case a.Effect == corev1.TaintEffectNoExecute && a.TolerationSeconds != nil && (b.TolerationSeconds == nil || *b.TolerationSeconds > *a.TolerationSeconds):
		return false
	case a.Operator == corev1.TolerationOpExists:
		return true
	case a.Operator == corev1.TolerationOpEqual || a.Operator == "":
		return a.Operator == b.Operator && a.Value == b.Value
	}
	return false
}
