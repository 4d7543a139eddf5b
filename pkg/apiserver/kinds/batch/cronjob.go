package batch

import (
	batchv1 "k8s.io/api/batch/v1"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/staging/api/defaults"
)

// CronJob is the row of cronjobs.
func CronJob() *kind.Def {
	return kind.Row(kind.Def{
		Kind: "CronJob", Resource: "cronjobs",
		ShortNames: []string{"cj"},
		Categories: []string{"all"},
		Namespaced: true,
		Generation: true,
		Subs:       []kind.Sub{kind.Status},
	}, kind.In[batchv1.CronJob, batchv1.CronJobList](batchv1.SchemeGroupVersion, defaults.CronJob))
}
