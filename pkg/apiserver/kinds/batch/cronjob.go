package batch

import (
	"strings"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/staging/api/defaults"
	"github.com/sextant-k8s/sextant/staging/api/validate"
)

// CronJob is the row of cronjobs.
func CronJob() *kind.Def {
	return kind.Row(kind.Def{
		Kind: "CronJob", Resource: "cronjobs",
		ShortNames: []string{"cj"},
		Categories: []string{"all"},
		Namespaced: true,
		Check:      kind.Valid(validate.CronJob, validate.CronJobUpdate),
		Generation: true,
		Subs:       []kind.Sub{kind.Status},
		Columns:    kind.Columns("Name Schedule Timezone Suspend:boolean Active:integer Last_Schedule Age Containers* Images* Selector*"),
		Row:        kind.Of(cronJobRow),
	}, kind.In[batchv1.CronJob, batchv1.CronJobList](batchv1.SchemeGroupVersion, defaults.CronJob))
}

func cronJobRow(c *batchv1.CronJob) []any {
	zone, last, suspend := "<none>", "<none>", "<unset>"
	if c.Spec.TimeZone != nil {
		zone = *c.Spec.TimeZone
	}
	if c.Status.LastScheduleTime != nil {
		last = kind.Age(*c.Status.LastScheduleTime)
	}
	if s := c.Spec.Suspend; s != nil {
		suspend = "False"
		if *s {
			suspend = "True"
		}
	}
	names, images := containers(c.Spec.JobTemplate.Spec.Template)
	return []any{
		c.Name, c.Spec.Schedule, zone, suspend, int64(len(c.Status.Active)), last, kind.Age(c.CreationTimestamp),
		names, images, metav1.FormatLabelSelector(c.Spec.JobTemplate.Spec.Selector),
	}
}

// containers answers the names and images of a template's containers as a table shows them.
func containers(t corev1.PodTemplateSpec) (names, images string) {
	n, i := make([]string, len(t.Spec.Containers)), make([]string, len(t.Spec.Containers))
	for k, c := range t.Spec.Containers {
		n[k], i[k] = c.Name, c.Image
	}
	return strings.Join(n, ","), strings.Join(i, ",")
}
