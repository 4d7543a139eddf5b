// Package job runs pods until as many have succeeded as a job asks for.
//
// The flow: gather the job's pods, decide, write the status, then free the pods that it counts, create and delete. The
// order matters: a pod's finalizer comes off only after the stored status names it, so that none is counted twice or lost.
package job

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	batchlisters "k8s.io/client-go/listers/batch/v1"

	"github.com/sextant-k8s/sextant/pkg/controllermanager/runtime"
)

var jobKind = batchv1.SchemeGroupVersion.WithKind("Job")

type controller struct {
	runtime.Deps
	jobs   batchlisters.JobLister
	pods   runtime.Children[corev1.Pod]
	expect runtime.Expectations
}

// New answers the controller.
func New(d runtime.Deps) *runtime.Controller {
	jobs, pods := d.Informers.Batch().V1().Jobs(), d.Informers.Core().V1().Pods()
	c := &controller{Deps: d, jobs: jobs.Lister(), pods: runtime.ByController[corev1.Pod](pods.Informer())}
	each := func(f func(runtime.Key, metav1.Object)) func(metav1.Object) {
		return func(obj metav1.Object) {
			for _, k := range runtime.Owner("Job")(nil, obj) {
				f(k, obj)
			}
		}
	}
	return &runtime.Controller{
		Name: "job-controller", Account: "job-controller", Queue: "job", For: "pods that run until a job is done",
		Watches: []runtime.Watch{
			{What: "jobs", Informer: jobs.Informer(), Keys: runtime.Self},
			{What: "pods", Informer: pods.Informer(), Keys: runtime.Owner("Job"),
				Born: each(func(k runtime.Key, _ metav1.Object) { c.expect.Created(k, 1) })},
		},
		Writes: []string{"pods", "jobs/status"}, Reconcile: c.reconcile,
	}
}

func (c *controller) reconcile(ctx context.Context, key runtime.Key) (time.Duration, error) {
	j, err := c.jobs.Jobs(key.Namespace).Get(key.Name)
	if apierrors.IsNotFound(err) {
		return 0, c.abandon(ctx, key)
	}
	if err != nil {
		return 0, err
	}
	if j.Spec.ManagedBy != nil && *j.Spec.ManagedBy != batchv1.JobControllerName || j.Spec.Selector == nil {
		return 0, nil
	}
	s := Snapshot{Job: j, Settled: c.expect.Met(key, time.Now()), Now: time.Now()}
	if s.Pods, err = runtime.Claim(ctx, c.Deps, j, jobKind, j.Spec.Selector, c.pods); err != nil {
		return 0, err
	}
	if j.DeletionTimestamp != nil {
		return 0, c.free(ctx, s.Pods)
	}
	p := decide(s)
	if text := p.String(); text != "" {
		slog.Debug("job", "key", key.String(), "plan", text)
	}
	if p.Status != nil {
		next := j.DeepCopy()
		next.Status = *p.Status
		if _, err := c.Client.BatchV1().Jobs(j.Namespace).UpdateStatus(ctx, next, metav1.UpdateOptions{}); err != nil {
			return 0, err
		}
		c.tell(j, p.Status)
	}
	return p.Again, errors.Join(c.free(ctx, p.Free), c.create(ctx, key, j, p.Create), c.delete(ctx, j, p.Delete))
}

// tell announces how a job ended.
func (c *controller) tell(j *batchv1.Job, s *batchv1.JobStatus) {
	for _, cond := range s.Conditions {
		if cond.Status != corev1.ConditionTrue || ended(j) {
			continue
		}
		switch cond.Type {
		case batchv1.JobComplete:
			c.Event(j, runtime.Normal, "Completed", "Job completed")
		case batchv1.JobFailed:
			c.Event(j, runtime.Warning, cond.Reason, cond.Message)
		}
	}
}

// abandon frees the pods of a job that is gone, so that they can be deleted.
func (c *controller) abandon(ctx context.Context, key runtime.Key) error {
	var mine []*corev1.Pod
	for _, p := range c.pods.Orphans(key.Namespace) {
		if holds(p) && p.Labels[batchv1.JobNameLabel] == key.Name {
			mine = append(mine, p)
		}
	}
	return c.free(ctx, mine)
}

// free takes the finalizer off pods that are counted.
func (c *controller) free(ctx context.Context, pods []*corev1.Pod) error {
	return runtime.Each(len(pods), func(i int) error {
		p := pods[i]
		if !holds(p) {
			return nil
		}
		patch := fmt.Sprintf(`{"metadata":{"uid":%q,"$deleteFromPrimitiveList/finalizers":[%q]}}`, p.UID, batchv1.JobTrackingFinalizer)
		_, err := c.Client.CoreV1().Pods(p.Namespace).Patch(ctx, p.Name, types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return err
	})
}

func (c *controller) create(ctx context.Context, key runtime.Key, j *batchv1.Job, indexes []int) error {
	c.expect.Creates(key, len(indexes), time.Now())
	return runtime.Each(len(indexes), func(i int) error {
		p, err := c.Client.CoreV1().Pods(j.Namespace).Create(ctx, newPod(j, indexes[i]), metav1.CreateOptions{})
		if err != nil {
			c.expect.Created(key, 1)
			if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
				return nil
			}
			c.Event(j, runtime.Warning, "FailedCreate", "Error creating: "+err.Error())
			return err
		}
		c.Event(j, runtime.Normal, "SuccessfulCreate", "Created pod: "+p.Name)
		return nil
	})
}

func (c *controller) delete(ctx context.Context, j *batchv1.Job, pods []*corev1.Pod) error {
	return runtime.Each(len(pods), func(i int) error {
		if err := runtime.DeletePod(ctx, c.Deps, pods[i]); err != nil {
			return err
		}
		c.Event(j, runtime.Normal, "SuccessfulDelete", "Deleted pod: "+pods[i].Name)
		return nil
	})
}

// newPod is a pod as the job makes them; index is -1 where there is none.
func newPod(j *batchv1.Job, index int) *corev1.Pod {
	t := j.Spec.Template.DeepCopy()
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Namespace: j.Namespace, GenerateName: j.Name + "-", Labels: t.Labels, Annotations: t.Annotations,
		Finalizers: append(t.Finalizers, batchv1.JobTrackingFinalizer), OwnerReferences: []metav1.OwnerReference{runtime.OwnedBy(j, jobKind)},
	}, Spec: t.Spec}
	if index < 0 {
		return p
	}
	n := strconv.Itoa(index)
	p.GenerateName = j.Name + "-" + n + "-"
	metav1.SetMetaDataAnnotation(&p.ObjectMeta, batchv1.JobCompletionIndexAnnotation, n)
	metav1.SetMetaDataLabel(&p.ObjectMeta, batchv1.JobCompletionIndexAnnotation, n)
	if p.Spec.Hostname == "" {
		p.Spec.Hostname = j.Name + "-" + n
	}
	for _, cs := range [][]corev1.Container{p.Spec.InitContainers, p.Spec.Containers} {
		for i := range cs {
			cs[i].Env = append(cs[i].Env, corev1.EnvVar{Name: "JOB_COMPLETION_INDEX", ValueFrom: &corev1.EnvVarSource{
				FieldRef: &corev1.ObjectFieldSelector{FieldPath: fmt.Sprintf("metadata.labels['%s']", batchv1.JobCompletionIndexAnnotation)},
			}})
		}
	}
	return p
}
