package job

import (
	"fmt"
	"slices"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Snapshot is what a decision is made on.
type Snapshot struct {
	Job     *batchv1.Job
	Pods    []*corev1.Pod // those it controls
	Settled bool          // the cache shows everything that was done
	Memory  Memory        // what the last decision answered
	Now     time.Time
}

// Memory is what pods told before they were gone. A restart forgets it, which at worst makes the next pod sooner.
type Memory struct {
	Success  time.Time               // the end of the last pod that succeeded
	Failures map[types.UID]time.Time // when each pod failed that did so after it; never changed
}

// Birth is a pod to be made.
type Birth struct {
	Index int // -1 where there are none
	// Failures and Ignored count the failures of the index before this pod, where each index has a limit of its own.
	Failures, Ignored int
}

// Plan is what is to be done, in this order: the status is written before anything else, so that what it counts is not lost.
type Plan struct {
	Status *batchv1.JobStatus
	Free   []*corev1.Pod // counted: their finalizer comes off
	Drop   []*corev1.Pod // no longer wanted: freed without being counted, then deleted
	End    []*corev1.Pod // deleted because the job is over
	Create []Birth
	Tell   []Event
	Again  time.Duration
	Memory Memory
}

// Event is what users are told.
type Event struct{ Type, Reason, Message string }

// String shows the plan as logs and tests do.
func (p Plan) String() string {
	var b strings.Builder
	if s := p.Status; s != nil {
		fmt.Fprintf(&b, "status active=%d ready=%d terminating=%d succeeded=%d failed=%d", s.Active, deref(s.Ready), deref(s.Terminating), s.Succeeded, s.Failed)
		if s.CompletedIndexes != "" {
			fmt.Fprintf(&b, " done=%s", s.CompletedIndexes)
		}
		if s.FailedIndexes != nil {
			fmt.Fprintf(&b, " lost=%s", *s.FailedIndexes)
		}
		if u := s.UncountedTerminatedPods; u != nil && len(u.Succeeded)+len(u.Failed) > 0 {
			fmt.Fprintf(&b, " uncounted=%v,%v", u.Succeeded, u.Failed)
		}
		b.WriteString("\n")
		for _, c := range s.Conditions {
			fmt.Fprintf(&b, "  %s=%s %s: %s\n", c.Type, c.Status, c.Reason, c.Message)
		}
	}
	for _, list := range []struct {
		what string
		pods []*corev1.Pod
	}{{"free", p.Free}, {"drop", p.Drop}, {"end", p.End}} {
		for _, d := range list.pods {
			fmt.Fprintf(&b, "%s %s\n", list.what, d.Name)
		}
	}
	for _, c := range p.Create {
		fmt.Fprintf(&b, "create %d", c.Index)
		if c.Failures+c.Ignored > 0 {
			fmt.Fprintf(&b, " after %d failures, %d ignored", c.Failures, c.Ignored)
		}
		b.WriteString("\n")
	}
	for _, e := range p.Tell {
		fmt.Fprintf(&b, "tell %s %s: %s\n", e.Type, e.Reason, e.Message)
	}
	if p.Again > 0 {
		fmt.Fprintf(&b, "again in %s\n", p.Again)
	}
	return b.String()
}

func deref(n *int32) int32 {
	if n == nil {
		return 0
	}
	return *n
}

// run is a decision being made.
type run struct {
	Snapshot
	plan   Plan
	status *batchv1.JobStatus

	active      []*corev1.Pod
	terminating []*corev1.Pod // deleted, and not at their end
	done        map[int]bool  // completion indexes that succeeded
	lost        map[int]bool  // those that failed for good, where each has a limit of its own
}

// verdict is how a job ends.
type verdict struct {
	kind            batchv1.JobConditionType
	reason, message string
}

// decide brings a job nearer its completions, counting every finished pod exactly once: a pod is first written into
// status.uncountedTerminatedPods, then freed of its finalizer, and counted for good when it no longer carries it.
func decide(s Snapshot) Plan {
	r := &run{Snapshot: s, status: s.Job.Status.DeepCopy()}
	if ended(s.Job) {
		for _, p := range s.Pods {
			if holds(p) {
				r.plan.Free = append(r.plan.Free, p)
			}
		}
		return r.plan
	}
	if r.status.StartTime == nil && !suspended(s.Job) {
		r.status.StartTime = at(s.Now)
	}
	r.sort()
	r.remember()
	r.settle()
	r.indexes()
	v := r.verdict()
	switch {
	case v != nil:
		r.plan.End = r.active
	case suspended(s.Job):
		r.suspend()
	default:
		r.resume()
		r.fill()
		v = r.complete()
	}
	r.note(v)
	r.finish(v)
	return r.plan
}

func ended(j *batchv1.Job) bool {
	return slices.ContainsFunc(j.Status.Conditions, func(c batchv1.JobCondition) bool {
		return (c.Type == batchv1.JobComplete || c.Type == batchv1.JobFailed) && c.Status == corev1.ConditionTrue
	})
}

func suspended(j *batchv1.Job) bool { return j.Spec.Suspend != nil && *j.Spec.Suspend }

func indexed(j *batchv1.Job) bool {
	return j.Spec.CompletionMode != nil && *j.Spec.CompletionMode == batchv1.IndexedCompletion
}

// patient tells whether a pod that is being deleted is only replaced when it has ended.
func patient(j *batchv1.Job) bool {
	return j.Spec.PodFailurePolicy != nil || j.Spec.PodReplacementPolicy != nil && *j.Spec.PodReplacementPolicy == batchv1.Failed
}

func holds(p *corev1.Pod) bool { return slices.Contains(p.Finalizers, batchv1.JobTrackingFinalizer) }

func at(t time.Time) *metav1.Time {
	m := metav1.NewTime(t.Truncate(time.Second))
	return &m
}

func over(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
}

// failed tells whether a pod counts as failed: one that is deleted may never say so itself.
func (r *run) failed(p *corev1.Pod) bool {
	if p.Status.Phase == corev1.PodFailed {
		return true
	}
	return !patient(r.Job) && p.DeletionTimestamp != nil && p.Status.Phase != corev1.PodSucceeded
}

func (r *run) sort() {
	for _, p := range r.Pods {
		switch {
		case over(p):
		case p.DeletionTimestamp != nil:
			r.terminating = append(r.terminating, p)
		default:
			r.active = append(r.active, p)
		}
	}
	slices.SortStableFunc(r.active, rank)
}

// rank puts first the pods whose loss is felt least.
func rank(a, b *corev1.Pod) int {
	weight := func(p *corev1.Pod) int {
		n := 0
		if p.Spec.NodeName != "" {
			n += 4
		}
		if p.Status.Phase == corev1.PodRunning {
			n += 2
		}
		if isReady(p) {
			n++
		}
		return n
	}
	if c := weight(a) - weight(b); c != 0 {
		return c
	}
	if c := b.CreationTimestamp.Compare(a.CreationTimestamp.Time); c != 0 {
		return c
	}
	return strings.Compare(a.Name, b.Name)
}

func isReady(p *corev1.Pod) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

func (r *run) suspend() {
	r.drop(r.active)
	r.status.StartTime = nil
	if r.set(batchv1.JobSuspended, corev1.ConditionTrue, "JobSuspended", "Job suspended") {
		r.tell(corev1.EventTypeNormal, "Suspended", "Job suspended")
	}
}

func (r *run) resume() {
	for _, c := range r.status.Conditions {
		if c.Type == batchv1.JobSuspended && c.Status == corev1.ConditionTrue {
			r.set(batchv1.JobSuspended, corev1.ConditionFalse, "JobResumed", "Job resumed")
			r.status.StartTime = at(r.Now)
			r.tell(corev1.EventTypeNormal, "Resumed", "Job resumed")
			return
		}
	}
}

func (r *run) tell(kind, reason, message string) {
	r.plan.Tell = append(r.plan.Tell, Event{kind, reason, message})
}

func (r *run) again(d time.Duration) {
	if r.plan.Again == 0 || d < r.plan.Again {
		r.plan.Again = d
	}
}

// set writes a condition and tells whether it says anything new.
func (r *run) set(t batchv1.JobConditionType, status corev1.ConditionStatus, reason, message string) bool {
	next := batchv1.JobCondition{Type: t, Status: status, Reason: reason, Message: message, LastProbeTime: *at(r.Now), LastTransitionTime: *at(r.Now)}
	for i, c := range r.status.Conditions {
		if c.Type == t {
			if c.Status == status {
				return false
			}
			r.status.Conditions[i] = next
			return true
		}
	}
	r.status.Conditions = append(r.status.Conditions, next)
	return true
}

// drop plans the end of pods that are not wanted any more, as if they had never been.
func (r *run) drop(pods []*corev1.Pod) {
	r.plan.Drop = append(r.plan.Drop, pods...)
	r.active = slices.DeleteFunc(slices.Clone(r.active), func(p *corev1.Pod) bool { return slices.Contains(pods, p) })
}

// finish closes the job if it is over, counts what runs, and writes the status if it changed.
func (r *run) finish(v *verdict) {
	left := len(r.terminating) + len(r.plan.Drop)
	if v != nil {
		left += len(r.active)
		r.active = nil
		interim := batchv1.JobSuccessCriteriaMet
		if v.kind == batchv1.JobFailed {
			interim = batchv1.JobFailureTarget
		}
		r.set(interim, corev1.ConditionTrue, v.reason, v.message)
		u := r.status.UncountedTerminatedPods
		// It is told when every pod has ended and is counted: the numbers of a closed job do not change.
		if left == 0 && len(u.Succeeded)+len(u.Failed) == 0 {
			r.close(v)
		}
	}
	ready, terminating := int32(0), int32(left)
	for _, p := range r.active {
		if isReady(p) {
			ready++
		}
	}
	r.status.Active, r.status.Ready, r.status.Terminating = int32(len(r.active)+len(r.plan.Create)), &ready, &terminating
	if !equality.Semantic.DeepEqual(*r.status, r.Job.Status) {
		r.plan.Status = r.status
	}
}

func (r *run) close(v *verdict) {
	r.set(v.kind, corev1.ConditionTrue, v.reason, v.message)
	if v.kind == batchv1.JobComplete {
		r.status.CompletionTime = at(r.Now)
		r.tell(corev1.EventTypeNormal, "Completed", "Job completed")
		return
	}
	r.tell(corev1.EventTypeWarning, v.reason, v.message)
}
