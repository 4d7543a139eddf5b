package batch

import (
	batchv1 "k8s.io/api/batch/v1"

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
	}, kind.In[batchv1.Job, batchv1.JobList](batchv1.SchemeGroupVersion, defaults.Job))
}
