package apps

import (
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

var (
	metadata = field.NewPath("metadata")
	spec     = field.NewPath("spec")
)

// A selector that would pick every pod of the namespace, or none of its own, is refused; noun is how upstream names the
// kind as it does so.
func checkSelector(noun string, s *metav1.LabelSelector, template *corev1.PodTemplateSpec) field.ErrorList {
	at := spec.Child("selector")
	var errs field.ErrorList
	if s == nil {
		errs = append(errs, field.Required(at, ""))
	} else {
		errs = append(errs, metav1validation.ValidateLabelSelector(s, metav1validation.LabelSelectorValidationOptions{}, at)...)
		if len(s.MatchLabels)+len(s.MatchExpressions) == 0 {
			errs = append(errs, field.Invalid(at, s, "empty selector is invalid for "+noun))
		}
	}
	selector, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		return append(errs, field.Invalid(at, s, "invalid label selector"))
	}
	if !selector.Matches(labels.Set(template.Labels)) {
		errs = append(errs, field.Invalid(spec.Child("template", "metadata", "labels"), template.Labels, "`selector` does not match template `labels`"))
	}
	return errs
}

// checkMeta checks the metadata; a nil old is none.
func checkMeta(m, old *metav1.ObjectMeta) field.ErrorList {
	errs := validation.ValidateObjectMeta(m, true, validation.NameIsDNSSubdomain, metadata)
	if old != nil {
		errs = append(errs, validation.ValidateObjectMetaUpdate(m, old, metadata)...)
	}
	return errs
}

// sameSelector: which pods are a workload's own is settled when it is made.
func sameSelector(s, old *metav1.LabelSelector) field.ErrorList {
	return validation.ValidateImmutableField(s, old, spec.Child("selector"))
}

func checkDeployment(_ *kind.Op, d, old *appsv1.Deployment) field.ErrorList {
	errs := checkSelector("deployment", d.Spec.Selector, &d.Spec.Template)
	if old == nil {
		return append(checkMeta(&d.ObjectMeta, nil), errs...)
	}
	errs = append(checkMeta(&d.ObjectMeta, &old.ObjectMeta), errs...)
	return append(errs, sameSelector(d.Spec.Selector, old.Spec.Selector)...)
}

func checkReplicaSet(_ *kind.Op, r, old *appsv1.ReplicaSet) field.ErrorList {
	// Upstream says deployment here too.
	errs := checkSelector("deployment", r.Spec.Selector, &r.Spec.Template)
	if old == nil {
		return append(checkMeta(&r.ObjectMeta, nil), errs...)
	}
	errs = append(checkMeta(&r.ObjectMeta, &old.ObjectMeta), errs...)
	return append(errs, sameSelector(r.Spec.Selector, old.Spec.Selector)...)
}

func checkDaemonSet(_ *kind.Op, d, old *appsv1.DaemonSet) field.ErrorList {
	errs := checkSelector("daemonset", d.Spec.Selector, &d.Spec.Template)
	if old == nil {
		return append(checkMeta(&d.ObjectMeta, nil), errs...)
	}
	errs = append(checkMeta(&d.ObjectMeta, &old.ObjectMeta), errs...)
	return append(errs, sameSelector(d.Spec.Selector, old.Spec.Selector)...)
}

const setSealed = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', " +
	"'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden"

func checkStatefulSet(_ *kind.Op, s, old *appsv1.StatefulSet) field.ErrorList {
	errs := checkSelector("statefulset", s.Spec.Selector, &s.Spec.Template)
	if old == nil {
		return append(checkMeta(&s.ObjectMeta, nil), errs...)
	}
	errs = append(checkMeta(&s.ObjectMeta, &old.ObjectMeta), errs...)
	rest, was := s.Spec, old.Spec
	rest.Replicas, rest.Ordinals, rest.Template, rest.UpdateStrategy = was.Replicas, was.Ordinals, was.Template, was.UpdateStrategy
	rest.RevisionHistoryLimit, rest.MinReadySeconds = was.RevisionHistoryLimit, was.MinReadySeconds
	rest.PersistentVolumeClaimRetentionPolicy = was.PersistentVolumeClaimRetentionPolicy
	if !equality.Semantic.DeepEqual(rest, was) {
		errs = append(errs, field.Forbidden(spec, setSealed))
	}
	return errs
}
