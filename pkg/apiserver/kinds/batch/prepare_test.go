package batch

import (
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func newJob() *batchv1.Job {
	return &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{Name: "a", Namespace: "n", UID: "u"},
		Spec: batchv1.JobSpec{Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{
			RestartPolicy: corev1.RestartPolicyNever, DNSPolicy: corev1.DNSClusterFirst,
			Containers: []corev1.Container{{Name: "c", Image: "x", ImagePullPolicy: corev1.PullAlways, TerminationMessagePolicy: corev1.TerminationMessageReadFile}},
		}}},
	}
}

// TestJobSelector: a job that brings no selector gets its own, and one that brings its own keeps it.
func TestJobSelector(t *testing.T) {
	j := newJob()
	prepareJob(nil, j, nil)
	if errs := checkJob(nil, j, nil); len(errs) > 0 {
		t.Fatal(errs)
	}
	for _, m := range []map[string]string{j.Labels, j.Spec.Template.Labels} {
		if m["job-name"] != "a" || m[batchv1.JobNameLabel] != "a" || m["controller-uid"] != "u" || m[batchv1.ControllerUidLabel] != "u" {
			t.Errorf("labels are %v", m)
		}
	}
	if got := metav1.FormatLabelSelector(j.Spec.Selector); got != batchv1.ControllerUidLabel+"=u" {
		t.Errorf("the selector is %q", got)
	}

	own := newJob()
	own.Spec.ManualSelector = new(true)
	own.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"x": "y"}}
	own.Spec.Template.Labels = map[string]string{"x": "y"}
	prepareJob(nil, own, nil)
	if len(own.Labels) != 0 || len(own.Spec.Template.Labels) != 1 || own.Spec.Selector.MatchLabels["x"] != "y" {
		t.Errorf("a job with its own selector became %+v", own)
	}

	forged := newJob()
	forged.Spec.Template.Labels = map[string]string{batchv1.ControllerUidLabel: "other"}
	prepareJob(nil, forged, nil)
	if errs := checkJob(nil, forged, nil); len(errs) == 0 {
		t.Error("a job may take another's pods")
	}
}

// TestJobUpdate: what may change of a job, and until when.
func TestJobUpdate(t *testing.T) {
	for _, c := range []struct {
		name   string
		before func(*batchv1.Job)
		change func(*batchv1.Job)
		want   string // the field refused
	}{
		{name: "nothing", change: func(*batchv1.Job) {}},
		{name: "parallelism", change: func(j *batchv1.Job) { j.Spec.Parallelism = new(int32(3)) }},
		{name: "completions", change: func(j *batchv1.Job) { j.Spec.Completions = new(int32(3)) }, want: "spec.completions"},
		{name: "image", change: func(j *batchv1.Job) { j.Spec.Template.Spec.Containers[0].Image = "y" }, want: "spec.template.spec"},
		{name: "node while running", change: func(j *batchv1.Job) { j.Spec.Template.Spec.NodeSelector = map[string]string{"a": "b"} }, want: "spec.template.spec"},
		{
			name: "node while suspended", before: func(j *batchv1.Job) { j.Spec.Suspend = new(true) },
			change: func(j *batchv1.Job) { j.Spec.Template.Spec.NodeSelector = map[string]string{"a": "b"} },
		},
		{
			name: "affinity while suspended", before: func(j *batchv1.Job) { j.Spec.Suspend = new(true) },
			change: func(j *batchv1.Job) {
				j.Spec.Template.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{
					PreferredDuringSchedulingIgnoredDuringExecution: []corev1.PreferredSchedulingTerm{{Weight: 1}},
				}}
			},
		},
		{
			name: "node once started", before: func(j *batchv1.Job) {
				j.Spec.Suspend, j.Status.StartTime = new(true), new(metav1.NewTime(time.Unix(1, 0)))
			},
			change: func(j *batchv1.Job) { j.Spec.Template.Spec.NodeSelector = map[string]string{"a": "b"} }, want: "spec.template.spec",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			old := newJob()
			old.ResourceVersion = "1"
			prepareJob(nil, old, nil)
			if c.before != nil {
				c.before(old)
			}
			j := old.DeepCopy()
			c.change(j)
			errs := checkJob(nil, j, old)
			if c.want == "" && len(errs) > 0 || c.want != "" && (len(errs) != 1 || errs[0].Field != c.want || !strings.Contains(errs[0].Detail, "immutable")) {
				t.Errorf("got %v, want %q refused", errs, c.want)
			}
		})
	}
}

// TestJobRow: the words of a table.
func TestJobRow(t *testing.T) {
	j := newJob()
	j.Spec.Completions, j.Status.Succeeded = new(int32(2)), 1
	j.Status.StartTime, j.Status.CompletionTime = new(metav1.NewTime(time.Unix(0, 0))), new(metav1.NewTime(time.Unix(90, 0)))
	j.Status.Conditions = []batchv1.JobCondition{{Type: batchv1.JobSuspended, Status: corev1.ConditionTrue}, {Type: batchv1.JobFailed, Status: corev1.ConditionTrue}}
	if r := jobRow(j); r[1] != "Failed" || r[2] != "1/2" || r[3] != "90s" {
		t.Errorf("a job is shown as %v", r)
	}
}
