package batch

import (
	"fmt"
	"slices"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/staging/api/defaults"
)

// Job is the row of jobs.
func Job() *kind.Def {
	return kind.Row(kind.Def{
		Kind: "Job", Resource: "jobs",
		Categories: []string{"all"},
		Namespaced: true,
		Generation: true,
		Subs:       []kind.Sub{kind.Status},
		Prepare:    kind.On(prepareJob),
		FieldNames: []string{"status.successful"},
		Fields: kind.Of(func(j *batchv1.Job) map[string]string {
			return map[string]string{"status.successful": fmt.Sprint(j.Status.Succeeded)}
		}),
		Check:   kind.Ask(checkJob),
		Columns: kind.Columns("Name Status Completions Duration Age Containers* Images* Selector*"),
		Row:     kind.Of(jobRow),
	}, kind.In[batchv1.Job, batchv1.JobList](batchv1.SchemeGroupVersion, defaults.Job))
}

func jobRow(j *batchv1.Job) []any {
	done := fmt.Sprintf("%d/1", j.Status.Succeeded)
	switch {
	case j.Spec.Completions != nil:
		done = fmt.Sprintf("%d/%d", j.Status.Succeeded, *j.Spec.Completions)
	case j.Spec.Parallelism != nil && *j.Spec.Parallelism > 1:
		done = fmt.Sprintf("%d/1 of %d", j.Status.Succeeded, *j.Spec.Parallelism)
	}
	took := ""
	if start, end := j.Status.StartTime, j.Status.CompletionTime; start != nil && end != nil {
		took = duration.HumanDuration(end.Sub(start.Time))
	} else if start != nil {
		took = kind.Age(*start)
	}
	names, images := containers(j.Spec.Template)
	return []any{
		j.Name, jobStatus(j), done, took, kind.Age(j.CreationTimestamp), names, images, metav1.FormatLabelSelector(j.Spec.Selector),
	}
}

// jobStatus is the one word for how a job stands: the end first, then what leads to it.
func jobStatus(j *batchv1.Job) string {
	has := func(t batchv1.JobConditionType) bool {
		return slices.ContainsFunc(j.Status.Conditions, func(c batchv1.JobCondition) bool {
			return c.Type == t && c.Status == corev1.ConditionTrue
		})
	}
	switch {
	case has(batchv1.JobComplete):
		return "Complete"
	case has(batchv1.JobFailed):
		return "Failed"
	case j.DeletionTimestamp != nil:
		return "Terminating"
	}
	for _, t := range []batchv1.JobConditionType{batchv1.JobSuspended, batchv1.JobFailureTarget, batchv1.JobSuccessCriteriaMet} {
		if has(t) {
			return string(t)
		}
	}
	return "Running"
}
