// Package cronjob starts jobs at the times of a schedule.
//
// The flow: gather the cron job's jobs, decide, delete, create, write the status; the key comes back when the next time
// has come. A job's name holds its time, so making one twice is impossible by itself. No state is kept but what was
// written and the cache does not show yet.
package cronjob

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"time"
	_ "time/tzdata" // zones are known on machines that have no list of them

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	batchlisters "k8s.io/client-go/listers/batch/v1"

	"github.com/sextant-k8s/sextant/pkg/controllermanager/runtime"
)

var kind = batchv1.SchemeGroupVersion.WithKind("CronJob")

type controller struct {
	runtime.Deps
	crons   batchlisters.CronJobLister
	jobs    runtime.Children[batchv1.Job]
	written runtime.Written
}

// New answers the controller.
func New(d runtime.Deps) *runtime.Controller {
	crons, jobs := d.Informers.Batch().V1().CronJobs(), d.Informers.Batch().V1().Jobs()
	c := &controller{Deps: d, crons: crons.Lister(), jobs: runtime.ByController[batchv1.Job](jobs.Informer())}
	return &runtime.Controller{
		Name: "cronjob-controller", Account: "cronjob-controller", Queue: "cronjob", For: "jobs at the times of a schedule",
		Watches: []runtime.Watch{
			{What: "cronjobs", Informer: crons.Informer(), Keys: runtime.Self},
			{What: "jobs", Informer: jobs.Informer(), Keys: runtime.Owner(kind.Kind)},
		},
		Writes: []string{"jobs", "cronjobs/status"}, Reconcile: c.reconcile,
	}
}

func (c *controller) reconcile(ctx context.Context, key runtime.Key) (time.Duration, error) {
	cj, err := c.crons.CronJobs(key.Namespace).Get(key.Name)
	if apierrors.IsNotFound(err) {
		c.written.Forget(key)
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	if c.written.Behind(cj) {
		return 0, nil // the newer one is on its way and brings the key
	}
	s := Snapshot{CronJob: cj, Jobs: c.jobs.Of(cj.UID), Zone: time.Local, Now: time.Now()}
	if name := cj.Spec.TimeZone; name != nil {
		if s.Zone, err = time.LoadLocation(*name); err != nil {
			s.Zone = nil
		}
	}
	if s.Jobs, err = c.unseen(ctx, cj, s.Jobs); err != nil {
		return 0, err
	}
	p := decide(s)
	if text := p.String(); text != "" {
		slog.Debug("cron job", "key", key.String(), "plan", text)
	}
	return p.Again, c.apply(ctx, cj, p)
}

// unseen adds the active jobs that the cache does not show: they may be too new for it, or gone.
func (c *controller) unseen(ctx context.Context, cj *batchv1.CronJob, jobs []*batchv1.Job) ([]*batchv1.Job, error) {
	for _, ref := range cj.Status.Active {
		if slices.ContainsFunc(jobs, func(j *batchv1.Job) bool { return j.UID == ref.UID }) {
			continue
		}
		live, err := c.Client.BatchV1().Jobs(cj.Namespace).Get(ctx, ref.Name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if live.UID == ref.UID && metav1.IsControlledBy(live, cj) {
			jobs = append(jobs, live)
		}
	}
	return jobs, nil
}

func (c *controller) apply(ctx context.Context, cj *batchv1.CronJob, p Plan) error {
	jobs := c.Client.BatchV1().Jobs(cj.Namespace)
	for _, e := range p.Tell {
		c.Event(cj, e.Type, e.Reason, e.Message)
	}
	background := metav1.DeletePropagationBackground
	for _, j := range p.Delete {
		err := jobs.Delete(ctx, j.Name, metav1.DeleteOptions{PropagationPolicy: &background, Preconditions: &metav1.Preconditions{UID: &j.UID}})
		if err != nil && !apierrors.IsNotFound(err) {
			c.Event(cj, runtime.Warning, "FailedDelete", "Deleted job: "+err.Error())
			return err
		}
		c.Event(cj, runtime.Normal, "SuccessfulDelete", "Deleted job "+j.Name)
	}
	status := p.Status
	if p.Create != nil {
		made, err := c.create(ctx, cj, p.Create)
		if made == nil {
			return err
		}
		status.Active = append(status.Active, reference(made))
	}
	if status == nil {
		return nil
	}
	next := cj.DeepCopy()
	next.Status = *status
	got, err := c.Client.BatchV1().CronJobs(cj.Namespace).UpdateStatus(ctx, next, metav1.UpdateOptions{})
	if err != nil {
		return err
	}
	c.written.Wrote(got)
	return nil
}

// create makes a job, nil if it cannot be. One that is there already and ours was made by a turn that got no further.
func (c *controller) create(ctx context.Context, cj *batchv1.CronJob, j *batchv1.Job) (*batchv1.Job, error) {
	jobs := c.Client.BatchV1().Jobs(cj.Namespace)
	made, err := jobs.Create(ctx, j, metav1.CreateOptions{})
	switch {
	case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		return nil, nil
	case apierrors.IsAlreadyExists(err):
		have, gerr := jobs.Get(ctx, j.Name, metav1.GetOptions{})
		if gerr != nil {
			return nil, gerr
		}
		if !metav1.IsControlledBy(have, cj) {
			return nil, errors.Join(err, errors.New("the job of that name is another's"))
		}
		return have, nil
	case err != nil:
		c.Event(cj, runtime.Warning, "FailedCreate", "Error creating job: "+err.Error())
		return nil, err
	}
	c.Event(cj, runtime.Normal, "SuccessfulCreate", "Created job "+made.Name)
	return made, nil
}
