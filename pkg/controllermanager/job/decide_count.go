package job

import (
	"slices"
	"strconv"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// The delays between the failure of a pod and the next one.
const (
	firstWait = 10 * time.Second
	lastWait  = 10 * time.Minute
)

// uncountedMost bounds how many pods stand in the status as not yet counted, and burst how many are made or dropped at once.
const (
	uncountedMost = 500
	burst         = 500
)

// settle counts for good what stands in the status as not yet counted and carries the finalizer no more.
func (r *run) settle() {
	if r.status.UncountedTerminatedPods == nil {
		r.status.UncountedTerminatedPods = &batchv1.UncountedTerminatedPods{}
	}
	held := map[types.UID]bool{}
	for _, p := range r.Pods {
		held[p.UID] = holds(p)
	}
	count := func(list []types.UID, total *int32) []types.UID {
		return slices.DeleteFunc(slices.Clone(list), func(uid types.UID) bool {
			if held[uid] {
				return false
			}
			*total++
			return true
		})
	}
	u := r.status.UncountedTerminatedPods
	u.Succeeded, u.Failed = count(u.Succeeded, &r.status.Succeeded), count(u.Failed, &r.status.Failed)
}

// note writes finished pods into the status and frees them. When the job is over, every pod is at its end: those that
// still run count as failed if the job did, and as nothing if it succeeded.
func (r *run) note(v *verdict) {
	u := r.status.UncountedTerminatedPods
	kept := map[types.UID]bool{}
	if v == nil && r.perIndex() {
		kept = r.keep()
	}
	for _, p := range r.Pods {
		if len(u.Succeeded)+len(u.Failed) >= uncountedMost {
			return
		}
		failed := r.failed(p)
		if !holds(p) || kept[p.UID] || slices.Contains(r.plan.Drop, p) || v == nil && !failed && p.Status.Phase != corev1.PodSucceeded {
			continue
		}
		r.plan.Free = append(r.plan.Free, p)
		known := slices.Contains(u.Failed, p.UID) || slices.Contains(u.Succeeded, p.UID)
		switch {
		case known || indexed(r.Job) && !r.inRange(index(p)):
		case p.Status.Phase == corev1.PodSucceeded:
			if !indexed(r.Job) { // an index says by itself that it was counted
				u.Succeeded = append(u.Succeeded, p.UID)
			}
		case failed && v == nil && !r.counts(p):
		case failed || v != nil && v.kind == batchv1.JobFailed:
			u.Failed = append(u.Failed, p.UID)
		}
	}
}

func (r *run) succeededTotal() int {
	if indexed(r.Job) {
		return len(r.done)
	}
	n := int(r.status.Succeeded) + len(r.status.UncountedTerminatedPods.Succeeded)
	for _, p := range r.Pods {
		if p.Status.Phase == corev1.PodSucceeded && r.isNew(p) {
			n++
		}
	}
	return n
}

func (r *run) failedTotal() int {
	n := int(r.status.Failed) + len(r.status.UncountedTerminatedPods.Failed)
	for _, p := range r.Pods {
		if r.failed(p) && r.isNew(p) && r.counts(p) && (!indexed(r.Job) || r.inRange(index(p))) {
			n++
		}
	}
	return n
}

// isNew tells whether a pod carries the finalizer and stands nowhere in the status.
func (r *run) isNew(p *corev1.Pod) bool {
	u := r.status.UncountedTerminatedPods
	return holds(p) && !slices.Contains(u.Succeeded, p.UID) && !slices.Contains(u.Failed, p.UID)
}

func (r *run) parallelism() int {
	if r.Job.Spec.Parallelism == nil {
		return 1
	}
	return int(*r.Job.Spec.Parallelism)
}

// fill creates the pods that are missing, or takes those that are too many.
func (r *run) fill() {
	if !r.Settled {
		return
	}
	want := r.parallelism()
	if c := r.Job.Spec.Completions; c != nil {
		want = max(0, min(want, int(*c)-r.succeededTotal()))
	} else if r.succeededTotal() > 0 {
		want = len(r.active) // one success ends a job without a number: what runs goes on, nothing new is begun
	}
	if extra := r.surplus(len(r.active) - want); len(extra) > 0 {
		r.drop(extra[:min(len(extra), burst)])
		return // what is missing is made when they are gone: their indexes are free then
	}
	n := want - len(r.active)
	if patient(r.Job) {
		n -= len(r.terminating)
	}
	if n = min(n, burst); n <= 0 {
		return
	}
	if r.perIndex() {
		r.plan.Create = r.births(n)
		return
	}
	if wait := r.backoff(); wait > 0 {
		r.again(wait)
		return
	}
	if indexed(r.Job) {
		for _, i := range r.pending(n) {
			r.plan.Create = append(r.plan.Create, Birth{Index: i})
		}
		return
	}
	for range n {
		r.plan.Create = append(r.plan.Create, Birth{Index: -1})
	}
}

// surplus answers at least n of the active pods, if n is more than none: first those whose index another has or that is
// none of the job's, then those whose loss is felt least.
func (r *run) surplus(n int) []*corev1.Pod {
	var out []*corev1.Pod
	left := r.active
	if indexed(r.Job) {
		seen := map[int]bool{}
		left = nil
		for _, p := range slices.Backward(r.active) { // the best of an index stays
			if i := index(p); !r.inRange(i) || seen[i] {
				out = append(out, p)
			} else {
				seen[i] = true
				left = append(left, p)
			}
		}
		slices.Reverse(left)
	}
	for len(out) < n && len(left) > 0 {
		out, left = append(out, left[0]), left[1:]
	}
	return out
}

// remember takes down which pods failed since the last success, so that they count as long as the job goes on, also when
// somebody deletes them.
func (r *run) remember() {
	m := Memory{Success: r.Memory.Success, Failures: map[types.UID]time.Time{}}
	for _, p := range r.Pods {
		if t := endedAt(p); p.Status.Phase == corev1.PodSucceeded && t.After(m.Success) {
			m.Success = t
		}
	}
	note := func(uid types.UID, t time.Time) {
		if t.After(m.Success) {
			m.Failures[uid] = t
		}
	}
	for uid, t := range r.Memory.Failures {
		note(uid, t)
	}
	for _, p := range r.Pods {
		if r.failed(p) && (holds(p) || p.DeletionTimestamp == nil) { // what was dropped failed nobody
			note(p.UID, endedAt(p))
		}
	}
	r.plan.Memory = m
}

// backoff answers how long the next pod has to wait for the failures since the last success.
func (r *run) backoff() time.Duration {
	var last time.Time
	for _, t := range r.plan.Memory.Failures {
		if t.After(last) {
			last = t
		}
	}
	return wait(len(r.plan.Memory.Failures), last, r.Now)
}

// wait answers how much is left of the delay after n failures, the last at a time.
func wait(n int, last, now time.Time) time.Duration {
	if n == 0 {
		return 0
	}
	return max(0, last.Add(min(firstWait<<min(n-1, 10), lastWait)).Sub(now))
}

// endedAt answers when a pod ended: when its last container did, or else when it was no longer ready, was deleted, or made.
func endedAt(p *corev1.Pod) time.Time {
	var last time.Time
	for _, c := range p.Status.ContainerStatuses {
		if t := c.State.Terminated; t != nil && t.FinishedAt.After(last) {
			last = t.FinishedAt.Time
		}
	}
	if !last.IsZero() {
		return last
	}
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady && c.Status != corev1.ConditionTrue && !c.LastTransitionTime.IsZero() {
			return c.LastTransitionTime.Time
		}
	}
	if d := p.DeletionTimestamp; d != nil {
		grace := int64(0)
		if p.DeletionGracePeriodSeconds != nil {
			grace = *p.DeletionGracePeriodSeconds
		}
		return d.Add(-time.Duration(grace) * time.Second)
	}
	return p.CreationTimestamp.Time
}

// index answers a pod's completion index, -1 if it has none.
func index(p *corev1.Pod) int {
	n, err := strconv.Atoi(p.Annotations[batchv1.JobCompletionIndexAnnotation])
	if err != nil {
		return -1
	}
	return n
}
