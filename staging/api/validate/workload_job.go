package validate

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/validation"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// CronJob answers what is wrong with a cron job.
func CronJob(c *batchv1.CronJob) field.ErrorList {
	errs := validation.ValidateObjectMeta(&c.ObjectMeta, true, validation.NameIsDNSSubdomain, field.NewPath("metadata"))
	errs = append(errs, cronJobSpec(&c.Spec, true, field.NewPath("spec"))...)
	// A job's name is the cron job's and eleven characters more.
	if len(c.Name) > 52 {
		errs = append(errs, field.Invalid(field.NewPath("metadata", "name"), c.Name, "must be no more than 52 characters"))
	}
	return errs
}

// CronJobUpdate answers what is wrong with a cron job in the place of old.
func CronJobUpdate(c, old *batchv1.CronJob) field.ErrorList {
	errs := common(&c.ObjectMeta, &old.ObjectMeta, true)
	errs = append(errs, validation.ValidateObjectMetaUpdate(&c.ObjectMeta, &old.ObjectMeta, metadata)...)
	zone := c.Spec.TimeZone != nil && (old.Spec.TimeZone == nil || *c.Spec.TimeZone != *old.Spec.TimeZone)
	return append(errs, cronJobSpec(&c.Spec, zone, field.NewPath("spec"))...)
}

func cronJobSpec(s *batchv1.CronJobSpec, zone bool, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	p := at.Child("schedule")
	if s.Schedule == "" {
		errs = append(errs, field.Required(p, ""))
	} else if f := strings.Fields(s.Schedule); !strings.HasPrefix(s.Schedule, "@") && len(f) != 5 && !strings.Contains(s.Schedule, "TZ") {
		errs = append(errs, field.Invalid(p, s.Schedule, fmt.Sprintf("expected exactly 5 fields, found %d: %v", len(f), f)))
	} else if strings.Contains(s.Schedule, "TZ") {
		errs = append(errs, field.Invalid(p, s.Schedule, "cannot use TZ or CRON_TZ in schedule, use timeZone field instead"))
	}
	errs = append(errs, atLeast0(s.StartingDeadlineSeconds, at.Child("startingDeadlineSeconds"))...)
	if t := s.TimeZone; t != nil && zone {
		p := at.Child("timeZone")
		if *t == "" {
			errs = append(errs, field.Invalid(p, *t, "timeZone must be nil or non-empty string"))
		} else if strings.EqualFold(*t, "Local") {
			errs = append(errs, field.Invalid(p, *t, "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones"))
		} else if _, err := time.LoadLocation(*t); err != nil {
			errs = append(errs, field.Invalid(p, *t, "unknown time zone "+*t))
		}
	}
	errs = add(errs, oneOf(at.Child("concurrencyPolicy"), s.ConcurrencyPolicy, batchv1.AllowConcurrent, batchv1.ForbidConcurrent, batchv1.ReplaceConcurrent))
	errs = append(errs, JobSpec(&s.JobTemplate.Spec, at.Child("jobTemplate", "spec"))...)
	errs = append(errs, atLeast0(s.SuccessfulJobsHistoryLimit, at.Child("successfulJobsHistoryLimit"))...)
	return append(errs, atLeast0(s.FailedJobsHistoryLimit, at.Child("failedJobsHistoryLimit"))...)
}

// JobSpec answers what is wrong with a job's spec at a path. Of the selector and the indexes of a success policy it says nothing: a job's row
// makes and checks the selector.
func JobSpec(s *batchv1.JobSpec, at *field.Path) field.ErrorList {
	errs := atLeast0(s.Parallelism, at.Child("parallelism"))
	errs = append(errs, atLeast0(s.Completions, at.Child("completions"))...)
	errs = append(errs, atLeast0(s.ActiveDeadlineSeconds, at.Child("activeDeadlineSeconds"))...)
	errs = append(errs, atLeast0(s.BackoffLimit, at.Child("backoffLimit"))...)
	errs = append(errs, atLeast0(s.TTLSecondsAfterFinished, at.Child("ttlSecondsAfterFinished"))...)
	errs = append(errs, atLeast0(s.BackoffLimitPerIndex, at.Child("backoffLimitPerIndex"))...)
	errs = append(errs, atLeast0(s.MaxFailedIndexes, at.Child("maxFailedIndexes"))...)
	indexed := s.CompletionMode != nil && *s.CompletionMode == batchv1.IndexedCompletion
	switch {
	case s.CompletionMode != nil && !indexed && *s.CompletionMode != batchv1.NonIndexedCompletion:
		errs = append(errs, field.NotSupported(at.Child("completionMode"), *s.CompletionMode, []batchv1.CompletionMode{batchv1.NonIndexedCompletion, batchv1.IndexedCompletion}))
	case indexed && s.Completions == nil:
		errs = append(errs, field.Required(at.Child("completions"), "when completion mode is Indexed"))
	case !indexed:
		if n := s.BackoffLimitPerIndex; n != nil {
			errs = append(errs, field.Invalid(at.Child("backoffLimitPerIndex"), *n, "requires indexed completion mode"))
		}
		if n := s.MaxFailedIndexes; n != nil {
			errs = append(errs, field.Invalid(at.Child("maxFailedIndexes"), *n, "requires indexed completion mode"))
		}
	}
	if n := s.MaxFailedIndexes; n != nil {
		if s.BackoffLimitPerIndex == nil {
			errs = append(errs, field.Required(at.Child("backoffLimitPerIndex"), "when maxFailedIndexes is specified"))
		}
		if s.Completions != nil && *n > *s.Completions {
			errs = append(errs, field.Invalid(at.Child("maxFailedIndexes"), *n, "must be less than or equal to completions"))
		}
	}
	errs = append(errs, failurePolicy(s, at.Child("podFailurePolicy"))...)
	if y := s.SuccessPolicy; y != nil {
		p := at.Child("successPolicy")
		if !indexed {
			errs = append(errs, field.Invalid(p, hub{y}, "requires indexed completion mode"))
		} else if len(y.Rules) == 0 {
			errs = append(errs, field.Required(p.Child("rules"), "at least one rules must be specified when the successPolicy is specified"))
		} else {
			for i, r := range y.Rules {
				errs = append(errs, successRule(r, s.Completions, p.Child("rules").Index(i))...)
			}
		}
	}
	if r := s.PodReplacementPolicy; r != nil {
		p := at.Child("podReplacementPolicy")
		known := []batchv1.PodReplacementPolicy{batchv1.Failed, batchv1.TerminatingOrFailed}
		if s.PodFailurePolicy != nil {
			known = known[:1]
		}
		errs = append(errs, among(p, *r, known...)...)
	}
	t := at.Child("template")
	errs = append(errs, PodTemplateSpec(&s.Template, t)...)
	p := t.Child("spec", "restartPolicy")
	switch r := s.Template.Spec.RestartPolicy; r {
	case corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever:
		if s.PodFailurePolicy != nil && r != corev1.RestartPolicyNever {
			errs = append(errs, field.Invalid(p, r, "only \"Never\" is supported when podFailurePolicy is specified"))
		}
	case "", corev1.RestartPolicyAlways:
		errs = append(errs, field.Required(p, `valid values: "OnFailure", "Never"`))
	default:
		errs = append(errs, field.NotSupported(p, r, []corev1.RestartPolicy{corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever}))
	}
	return errs
}

// successRule checks which of a job's indexes, or how many, are enough.
func successRule(r batchv1.SuccessPolicyRule, completions *int32, at *field.Path) field.ErrorList {
	if r.SucceededCount == nil && r.SucceededIndexes == nil {
		return field.ErrorList{field.Required(at, "at least one of succeededCount or succeededIndexes must be specified")}
	}
	var errs field.ErrorList
	listed := int32(0)
	if x := r.SucceededIndexes; x != nil {
		n, err := indexes(*x, completions)
		if err != "" {
			errs = append(errs, field.Invalid(at.Child("succeededIndexes"), *x, "error parsing succeededIndexes: "+err))
		}
		listed = n
	}
	if n := r.SucceededCount; n != nil {
		p := at.Child("succeededCount")
		errs = append(errs, atLeast0(n, p)...)
		if completions != nil && *n > *completions {
			errs = append(errs, field.Invalid(p, *n, fmt.Sprintf("must be less than or equal to %d (the number of specified completions)", *completions)))
		}
		if r.SucceededIndexes != nil && *n > listed {
			errs = append(errs, field.Invalid(p, *n, fmt.Sprintf("must be less than or equal to %d (the number of indexes in the specified succeededIndexes field)", listed)))
		}
	}
	return errs
}

// indexes counts the indexes of a list like "1,3-5"; wrong is what is wrong with it.
func indexes(list string, completions *int32) (n int32, wrong string) {
	if list == "" {
		return 0, ""
	}
	last := int64(-1)
	one := func(s string) (int64, string) {
		v, err := strconv.ParseInt(s, 10, 32)
		switch {
		case err != nil:
			return 0, fmt.Sprintf("cannot convert string to integer for index: %q", s)
		case completions != nil && v >= int64(*completions):
			return 0, fmt.Sprintf("too large index: %q", s)
		}
		return v, ""
	}
	for _, part := range strings.Split(list, ",") {
		from, to, span := strings.Cut(part, "-")
		if span && strings.Contains(to, "-") {
			return 0, fmt.Sprintf("the fragment %q violates the requirement that an index interval can have at most two parts separated by '-'", part)
		}
		a, err := one(from)
		if err != "" {
			return 0, err
		}
		if a <= last {
			return 0, fmt.Sprintf("non-increasing order, previous: %d, current: %d", last, a)
		}
		last = a
		if span {
			b, err := one(to)
			if err != "" {
				return 0, err
			}
			if b <= a {
				return 0, fmt.Sprintf("non-increasing order, previous: %d, current: %d", a, b)
			}
			n += int32(b - a)
			last = b
		}
		n++
	}
	return n, ""
}

func failurePolicy(s *batchv1.JobSpec, at *field.Path) field.ErrorList {
	if s.PodFailurePolicy == nil {
		return nil
	}
	var errs field.ErrorList
	actions := []batchv1.PodFailurePolicyAction{batchv1.PodFailurePolicyActionCount, batchv1.PodFailurePolicyActionFailIndex, batchv1.PodFailurePolicyActionFailJob, batchv1.PodFailurePolicyActionIgnore}
	for i, r := range s.PodFailurePolicy.Rules {
		p := at.Child("rules").Index(i)
		switch {
		case r.Action == "":
			errs = append(errs, field.Required(p.Child("action"), fmt.Sprintf("valid values: %q", actions)))
		case !slices.Contains(actions, r.Action):
			errs = append(errs, field.NotSupported(p.Child("action"), r.Action, actions))
		case r.Action == batchv1.PodFailurePolicyActionFailIndex && s.BackoffLimitPerIndex == nil:
			errs = append(errs, field.Invalid(p.Child("action"), r.Action, "requires the backoffLimitPerIndex to be set"))
		}
		if (r.OnExitCodes == nil) == (len(r.OnPodConditions) == 0) {
			errs = append(errs, field.Invalid(p, field.OmitValueType{}, "specifying one of OnExitCodes and OnPodConditions is required"))
			continue
		}
		if r.OnExitCodes != nil {
			errs = append(errs, exitCodes(r.OnExitCodes, &s.Template.Spec, p.Child("onExitCodes"))...)
		}
		for k, c := range r.OnPodConditions {
			q := p.Child("onPodConditions").Index(k)
			errs = append(errs, invalid(q.Child("type"), c.Type, utilvalidation.IsQualifiedName(string(c.Type)))...)
			errs = add(errs, oneOf(q.Child("status"), c.Status, corev1.ConditionFalse, corev1.ConditionTrue, corev1.ConditionUnknown))
		}
	}
	return errs
}

func exitCodes(r *batchv1.PodFailurePolicyOnExitCodesRequirement, pod *corev1.PodSpec, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	operators := []batchv1.PodFailurePolicyOnExitCodesOperator{batchv1.PodFailurePolicyOnExitCodesOpIn, batchv1.PodFailurePolicyOnExitCodesOpNotIn}
	if r.Operator == "" {
		errs = append(errs, field.Required(at.Child("operator"), fmt.Sprintf("valid values: %q", operators)))
	} else if !slices.Contains(operators, r.Operator) {
		errs = append(errs, field.NotSupported(at.Child("operator"), r.Operator, operators))
	}
	if n := r.ContainerName; n != nil {
		named := func(c corev1.Container) bool { return c.Name == *n }
		if !slices.ContainsFunc(pod.Containers, named) && !slices.ContainsFunc(pod.InitContainers, named) {
			errs = append(errs, field.Invalid(at.Child("containerName"), *n, "must be one of the container or initContainer names in the pod template"))
		}
	}
	p := at.Child("values")
	if len(r.Values) == 0 {
		errs = append(errs, field.Invalid(p, r.Values, "at least one value is required"))
	} else if len(r.Values) > 255 {
		errs = append(errs, field.TooMany(p, len(r.Values), 255))
	}
	for i, v := range r.Values {
		if v == 0 && r.Operator == batchv1.PodFailurePolicyOnExitCodesOpIn {
			errs = append(errs, field.Invalid(p.Index(i), v, "must not be 0 for the In operator"))
		}
		if slices.Contains(r.Values[:i], v) {
			errs = append(errs, field.Duplicate(p.Index(i), v))
		} else if i > 0 && v < r.Values[i-1] {
			errs = append(errs, field.Invalid(p, r.Values, "must be ordered"))
		}
	}
	return errs
}
