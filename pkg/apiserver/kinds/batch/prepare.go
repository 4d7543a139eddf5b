package batch

import (
	"fmt"
	"maps"
	"slices"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/labels"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/staging/api/validate"
)

// The labels a job's pods carried before they had a prefix; they still do.
const (
	oldNameLabel = "job-name"
	oldUIDLabel  = "controller-uid"
)

// given are the labels that a job's pods get.
var given = []string{oldNameLabel, batchv1.JobNameLabel, oldUIDLabel, batchv1.ControllerUidLabel}

// prepareJob gives a new job a selector that no other job's pods match, unless it says that it brings its own.
func prepareJob(_ *kind.Op, j, old *batchv1.Job) {
	if old != nil {
		return
	}
	if j.Spec.ManualSelector == nil {
		j.Spec.ManualSelector = new(false)
	}
	if *j.Spec.ManualSelector {
		return
	}
	// A job without labels has those of its template, as they are at last.
	inherits := len(j.Labels) == 0 || maps.Equal(j.Labels, j.Spec.Template.Labels)
	own := maps.Clone(j.Spec.Template.Labels)
	if own == nil {
		own = map[string]string{}
	}
	uid := string(j.UID)
	for k, v := range map[string]string{oldNameLabel: j.Name, batchv1.JobNameLabel: j.Name, oldUIDLabel: uid, batchv1.ControllerUidLabel: uid} {
		// What the client set stays, for the check to refuse.
		if _, set := own[k]; !set {
			own[k] = v
		}
	}
	j.Spec.Template.Labels = own
	if inherits {
		j.Labels = maps.Clone(own)
	}
	if j.Spec.Selector == nil {
		j.Spec.Selector = &metav1.LabelSelector{}
	}
	s := j.Spec.Selector
	if _, set := s.MatchLabels[batchv1.ControllerUidLabel]; !set {
		if s.MatchLabels == nil {
			s.MatchLabels = map[string]string{}
		}
		s.MatchLabels[batchv1.ControllerUidLabel] = uid
	}
}

func checkJob(_ *kind.Op, j, old *batchv1.Job) field.ErrorList {
	metadata, meta := field.NewPath("metadata"), j.ObjectMeta
	if t := j.Spec.Template.Labels; old == nil && maps.Equal(meta.Labels, t) && !slices.ContainsFunc(slices.Collect(maps.Keys(t)), func(k string) bool { return !slices.Contains(given, k) }) {
		meta.Labels = nil // they are nobody's words; what is wrong with them is told of the template
	}
	errs := validation.ValidateObjectMeta(&meta, true, validation.NameIsDNSSubdomain, metadata)
	errs = append(errs, checkJobSpec(j)...)
	if m, n := j.Spec.CompletionMode, j.Spec.Completions; old == nil && m != nil && *m == batchv1.IndexedCompletion && n != nil && *n > 0 {
		// A pod of an index is called after both, and its host name is that.
		host := fmt.Sprintf("%s-%d", j.Name, *n-1)
		if len(utilvalidation.IsDNS1123Label(host)) > 0 {
			errs = append(errs, field.Invalid(metadata.Child("name"), j.Name, "will not able to create pod with invalid DNS label: "+host))
		}
	}
	if old == nil {
		if j.Spec.ManualSelector == nil || !*j.Spec.ManualSelector {
			errs = append(errs, checkGenerated(field.NewPath("spec", "template", "metadata", "labels"), j)...)
		}
		return errs
	}
	errs = append(errs, validation.ValidateObjectMetaUpdate(&j.ObjectMeta, &old.ObjectMeta, metadata)...)
	// The spec is told twice of, as upstream does: as one by itself, and as one in the place of another.
	errs = append(errs, checkJobSpec(j)...)
	return append(errs, checkJobUpdate(j, old)...)
}

func checkJobSpec(j *batchv1.Job) field.ErrorList {
	spec := field.NewPath("spec")
	errs := validate.JobSpec(&j.Spec, spec)
	if j.Spec.Selector == nil {
		errs = append(errs, field.Required(spec.Child("selector"), ""))
	} else {
		errs = append(errs, metav1validation.ValidateLabelSelector(j.Spec.Selector, metav1validation.LabelSelectorValidationOptions{}, spec.Child("selector"))...)
	}
	at := spec.Child("template", "metadata", "labels")
	if selector, err := metav1.LabelSelectorAsSelector(j.Spec.Selector); err == nil && !selector.Matches(labels.Set(j.Spec.Template.Labels)) {
		errs = append(errs, field.Invalid(at, j.Spec.Template.Labels, "`selector` does not match template `labels`"))
	}
	return errs
}

// checkGenerated refuses labels that stand where the server's own belong.
func checkGenerated(at *field.Path, j *batchv1.Job) field.ErrorList {
	var errs field.ErrorList
	uid := string(j.UID)
	for _, l := range []struct{ key, value string }{
		{oldUIDLabel, uid}, {batchv1.ControllerUidLabel, uid}, {oldNameLabel, j.Name}, {batchv1.JobNameLabel, j.Name},
	} {
		if got := j.Spec.Template.Labels[l.key]; got != l.value {
			errs = append(errs, field.Invalid(at.Key(l.key), got, "must be '"+l.value+"'"))
		}
	}
	want := metav1.LabelSelector{MatchLabels: map[string]string{batchv1.ControllerUidLabel: uid}}
	older := metav1.LabelSelector{MatchLabels: map[string]string{oldUIDLabel: uid}}
	if j.Spec.Selector != nil && !equality.Semantic.DeepEqual(*j.Spec.Selector, want) && !equality.Semantic.DeepEqual(*j.Spec.Selector, older) {
		errs = append(errs, field.Invalid(field.NewPath("spec", "selector"), j.Spec.Selector, "`selector` not auto-generated"))
	}
	return errs
}

// checkJobUpdate: what a job does is settled when it is made; where its pods may run until it first starts.
func checkJobUpdate(j, old *batchv1.Job) field.ErrorList {
	spec := field.NewPath("spec")
	is, was := &j.Spec, &old.Spec
	same := func(a, b any, name ...string) field.ErrorList {
		return validation.ValidateImmutableField(a, b, spec.Child(name[0], name[1:]...))
	}
	var errs field.ErrorList
	indexed := is.CompletionMode != nil && *is.CompletionMode == batchv1.IndexedCompletion
	scaled := indexed && is.Completions != nil && is.Parallelism != nil && *is.Completions == *is.Parallelism
	if !scaled {
		errs = append(errs, same(is.Completions, was.Completions, "completions")...)
	}
	errs = append(errs, same(is.Selector, was.Selector, "selector")...)
	template := was.Template
	if was.Suspend != nil && *was.Suspend && old.Status.StartTime == nil {
		template = *was.Template.DeepCopy()
		template.Labels, template.Annotations = is.Template.Labels, is.Template.Annotations
		t, n := &template.Spec, &is.Template.Spec
		t.NodeSelector, t.Tolerations, t.SchedulingGates = n.NodeSelector, n.Tolerations, n.SchedulingGates
		var affinity *corev1.NodeAffinity
		if n.Affinity != nil {
			affinity = n.Affinity.NodeAffinity
		}
		if t.Affinity == nil && affinity != nil {
			t.Affinity = &corev1.Affinity{}
		}
		if t.Affinity != nil {
			t.Affinity.NodeAffinity = affinity
			if n.Affinity == nil && *t.Affinity == (corev1.Affinity{}) {
				t.Affinity = nil
			}
		}
	}
	errs = append(errs, same(is.Template.ObjectMeta, template.ObjectMeta, "template", "metadata")...)
	errs = append(errs, same(is.Template.Spec, template.Spec, "template", "spec")...)
	errs = append(errs, same(is.CompletionMode, was.CompletionMode, "completionMode")...)
	errs = append(errs, same(is.PodFailurePolicy, was.PodFailurePolicy, "podFailurePolicy")...)
	errs = append(errs, same(is.BackoffLimitPerIndex, was.BackoffLimitPerIndex, "backoffLimitPerIndex")...)
	errs = append(errs, same(is.ManagedBy, was.ManagedBy, "managedBy")...)
	return append(errs, same(is.SuccessPolicy, was.SuccessPolicy, "successPolicy")...)
}
