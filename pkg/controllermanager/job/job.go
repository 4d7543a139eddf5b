// Package job runs pods until as many have succeeded as a job asks for.
//
// The flow: gather the job's pods, decide, write the status, then free the pods that it counts, delete and create. The
// order matters: a pod's finalizer comes off only after the stored status names it, so that none is counted twice or lost.
// When pods failed is remembered by job, guarded by a mutex, so that the next one waits though they were deleted.
package job

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	batchlisters "k8s.io/client-go/listers/batch/v1"
	corelisters "k8s.io/client-go/listers/core/v1"

	"github.com/sextant-k8s/sextant/pkg/controllermanager/runtime"
)

var jobKind = batchv1.SchemeGroupVersion.WithKind("Job")

type controller struct {
	runtime.Deps
	jobs    batchlisters.JobLister
	podsIn  corelisters.PodLister
	pods    runtime.Children[corev1.Pod]
	expect  runtime.Expectations
	written runtime.Written

	mu       sync.Mutex
	memories map[runtime.Key]remembered
}

// remembered is the memory of a job, which another of its name does not share.
type remembered struct {
	uid types.UID
	Memory
}

func (c *controller) recall(key runtime.Key, uid types.UID) Memory {
	c.mu.Lock()
	defer c.mu.Unlock()
	if m := c.memories[key]; m.uid == uid {
		return m.Memory
	}
	return Memory{}
}

// remember keeps what a decision answered, as long as it is of use.
func (c *controller) remember(key runtime.Key, uid types.UID, m Memory) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(m.Failures) == 0 {
		delete(c.memories, key)
		return
	}
	c.memories[key] = remembered{uid, m}
}

// New answers the controller.
func New(d runtime.Deps) *runtime.Controller {
	jobs, pods := d.Informers.Batch().V1().Jobs(), d.Informers.Core().V1().Pods()
	c := &controller{Deps: d, jobs: jobs.Lister(), podsIn: pods.Lister(), pods: runtime.ByController[corev1.Pod](pods.Informer()), memories: map[runtime.Key]remembered{}}
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
			{What: "pods", Informer: pods.Informer(), Keys: func(old, obj metav1.Object) []runtime.Key {
				keys := runtime.Owner("Job")(old, obj)
				for _, k := range keys {
					if obj.GetDeletionTimestamp() != nil {
						c.expect.Deleted(k, obj.GetUID())
					}
				}
				if len(keys) == 0 && obj.GetLabels()[batchv1.JobNameLabel] != "" { // it may have lost its job, or find one
					keys = []runtime.Key{{Namespace: obj.GetNamespace(), Name: obj.GetLabels()[batchv1.JobNameLabel]}}
				}
				return keys
			},
				Born: each(func(k runtime.Key, _ metav1.Object) { c.expect.Created(k, 1) }),
				Gone: each(func(k runtime.Key, obj metav1.Object) { c.expect.Deleted(k, obj.GetUID()) })},
		},
		Writes: []string{"pods", "jobs/status"}, Reconcile: c.reconcile,
		LastRetry: time.Minute, // as upstream's: who was out of quota begins soon after there is room
	}
}

func (c *controller) reconcile(ctx context.Context, key runtime.Key) (time.Duration, error) {
	j, err := c.jobs.Jobs(key.Namespace).Get(key.Name)
	if apierrors.IsNotFound(err) {
		c.written.Forget(key)
		c.remember(key, "", Memory{})
		return 0, c.abandon(ctx, key)
	}
	if err != nil {
		return 0, err
	}
	if j.Spec.ManagedBy != nil && *j.Spec.ManagedBy != batchv1.JobControllerName || j.Spec.Selector == nil {
		return 0, nil
	}
	if c.written.Behind(j) {
		return 0, nil // the newer one is on its way and brings the key
	}
	if err := c.disown(ctx, j); err != nil {
		return 0, err
	}
	s := Snapshot{Job: j, Settled: c.expect.Met(key, time.Now()), Memory: c.recall(key, j.UID), Now: time.Now()}
	if s.Pods, err = runtime.Claim(ctx, c.Deps, j, jobKind, j.Spec.Selector, c.pods); err != nil {
		return 0, err
	}
	if j.DeletionTimestamp != nil {
		return 0, c.free(ctx, s.Pods)
	}
	p := decide(s)
	c.remember(key, j.UID, p.Memory)
	if text := p.String(); text != "" {
		slog.Debug("job", "key", key.String(), "plan", text)
	}
	return p.Again, c.apply(ctx, key, j, p)
}

func (c *controller) apply(ctx context.Context, key runtime.Key, j *batchv1.Job, p Plan) error {
	if p.Status != nil {
		next := j.DeepCopy()
		next.Status = *p.Status
		got, err := c.Client.BatchV1().Jobs(j.Namespace).UpdateStatus(ctx, next, metav1.UpdateOptions{})
		if err != nil {
			return err
		}
		c.written.Wrote(got)
	}
	for _, e := range p.Tell {
		c.Event(j, e.Type, e.Reason, e.Message)
	}
	if err := c.free(ctx, append(slices.Clone(p.Free), p.Drop...)); err != nil {
		return err
	}
	return errors.Join(c.delete(ctx, key, j, append(slices.Clone(p.Drop), p.End...)), c.create(ctx, key, j, p.Create))
}

// abandon frees the pods of a job that is gone, so that they can be deleted.
func (c *controller) abandon(ctx context.Context, key runtime.Key) error {
	all, err := c.podsIn.Pods(key.Namespace).List(labels.SelectorFromSet(labels.Set{batchv1.JobNameLabel: key.Name}))
	if err != nil {
		return err
	}
	var mine []*corev1.Pod
	for _, p := range all {
		if ref := metav1.GetControllerOf(p); holds(p) && (ref == nil || ref.Kind == "Job" && ref.Name == key.Name) {
			mine = append(mine, p)
		}
	}
	return c.free(ctx, mine)
}

// disown frees pods that are the job's but no longer match its selector: whoever releases them forgets them.
func (c *controller) disown(ctx context.Context, j *batchv1.Job) error {
	selector, err := metav1.LabelSelectorAsSelector(j.Spec.Selector)
	if err != nil {
		return fmt.Errorf("the selector cannot be read: %w", err)
	}
	return c.free(ctx, slices.DeleteFunc(c.pods.Of(j.UID), func(p *corev1.Pod) bool { return selector.Matches(labels.Set(p.Labels)) }))
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

// create makes pods, in batches that double as long as they succeed: when pods cannot be made at all, one finds out.
func (c *controller) create(ctx context.Context, key runtime.Key, j *batchv1.Job, births []Birth) error {
	if len(births) == 0 {
		return nil
	}
	c.expect.Creates(key, len(births), time.Now())
	for batch := 1; len(births) > 0; batch = min(2*batch, runtime.Parallel) {
		now := births[:min(batch, len(births))]
		births = births[len(now):]
		err := runtime.Each(len(now), func(i int) error {
			p, err := c.Client.CoreV1().Pods(j.Namespace).Create(ctx, newPod(j, now[i]), metav1.CreateOptions{})
			if err != nil {
				c.expect.Created(key, 1)
				c.Event(j, runtime.Warning, "FailedCreate", "Error creating: "+err.Error())
				return err
			}
			c.Event(j, runtime.Normal, "SuccessfulCreate", "Created pod: "+p.Name)
			return nil
		})
		if err != nil {
			c.expect.Created(key, len(births))
			if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
				return nil
			}
			return err
		}
	}
	return nil
}

func (c *controller) delete(ctx context.Context, key runtime.Key, j *batchv1.Job, pods []*corev1.Pod) error {
	for _, p := range pods {
		c.expect.Deletes(key, p.UID, time.Now())
	}
	return runtime.Each(len(pods), func(i int) error {
		if err := runtime.DeletePod(ctx, c.Deps, pods[i]); err != nil {
			c.expect.Deleted(key, pods[i].UID)
			c.Event(j, runtime.Warning, "FailedDelete", "Error deleting: "+err.Error())
			return err
		}
		c.Event(j, runtime.Normal, "SuccessfulDelete", "Deleted pod: "+pods[i].Name)
		return nil
	})
}

// nameMost is how long a name may be that the apiserver makes unique with five letters more.
const nameMost = 58

// newPod is a pod as the job makes them.
func newPod(j *batchv1.Job, b Birth) *corev1.Pod {
	t := j.Spec.Template.DeepCopy()
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Namespace: j.Namespace, GenerateName: j.Name + "-", Labels: t.Labels, Annotations: t.Annotations,
		Finalizers: append(t.Finalizers, batchv1.JobTrackingFinalizer), OwnerReferences: []metav1.OwnerReference{runtime.OwnedBy(j, jobKind)},
	}, Spec: t.Spec}
	if b.Index < 0 {
		return p
	}
	n := strconv.Itoa(b.Index)
	p.GenerateName = j.Name[:min(len(j.Name), nameMost-len(n)-2)] + "-" + n + "-"
	metav1.SetMetaDataAnnotation(&p.ObjectMeta, batchv1.JobCompletionIndexAnnotation, n)
	metav1.SetMetaDataLabel(&p.ObjectMeta, batchv1.JobCompletionIndexAnnotation, n)
	if j.Spec.BackoffLimitPerIndex != nil {
		metav1.SetMetaDataAnnotation(&p.ObjectMeta, batchv1.JobIndexFailureCountAnnotation, strconv.Itoa(b.Failures))
		if b.Ignored > 0 {
			metav1.SetMetaDataAnnotation(&p.ObjectMeta, ignoredNote, strconv.Itoa(b.Ignored))
		}
	}
	p.Spec.Hostname = j.Name + "-" + n
	for _, cs := range [][]corev1.Container{p.Spec.InitContainers, p.Spec.Containers} {
		for i := range cs {
			if slices.ContainsFunc(cs[i].Env, func(e corev1.EnvVar) bool { return e.Name == indexEnv }) {
				continue
			}
			cs[i].Env = append(cs[i].Env, corev1.EnvVar{Name: indexEnv, ValueFrom: &corev1.EnvVarSource{
				FieldRef: &corev1.ObjectFieldSelector{FieldPath: fmt.Sprintf("metadata.labels['%s']", batchv1.JobCompletionIndexAnnotation)},
			}})
		}
	}
	return p
}

// indexEnv is the variable in which a container finds its completion index.
const indexEnv = "JOB_COMPLETION_INDEX"
