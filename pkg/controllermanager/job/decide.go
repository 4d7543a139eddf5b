package job

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// The delays between the failure of a pod and the next one.
const (
	firstWait = 10 * time.Second
	lastWait  = 10 * time.Minute
)

// Snapshot is what a decision is made on.
type Snapshot struct {
	Job     *batchv1.Job
	Pods    []*corev1.Pod // those it controls
	Settled bool          // the cache shows everything that was done
	Now     time.Time
}

// Plan is what is to be done.
type Plan struct {
	Create []int // completion indexes; -1 where there are none
	Delete []*corev1.Pod
	Free   []*corev1.Pod // finished pods that are counted: their finalizer comes off
	Status *batchv1.JobStatus
	Again  time.Duration
}

// String shows the plan as logs and tests do.
func (p Plan) String() string {
	var b strings.Builder
	if len(p.Create) > 0 {
		fmt.Fprintf(&b, "create %v\n", p.Create)
	}
	for _, d := range p.Delete {
		fmt.Fprintf(&b, "delete %s\n", d.Name)
	}
	for _, d := range p.Free {
		fmt.Fprintf(&b, "free %s\n", d.Name)
	}
	if s := p.Status; s != nil {
		fmt.Fprintf(&b, "status active=%d succeeded=%d failed=%d\n", s.Active, s.Succeeded, s.Failed)
		for _, c := range s.Conditions {
			fmt.Fprintf(&b, "  %s=%s %s\n", c.Type, c.Status, c.Reason)
		}
	}
	return b.String()
}

// run is a decision being made.
type run struct {
	Snapshot
	plan      Plan
	status    *batchv1.JobStatus
	active    []*corev1.Pod
	succeeded []*corev1.Pod
	failed    []*corev1.Pod
	done      map[int]bool // completion indexes that succeeded
}

// decide brings a job nearer its completions, counting every finished pod exactly once: a pod is first written into
// status.uncountedTerminatedPods, then freed of its finalizer, and counted for good when it no longer carries it.
func decide(s Snapshot) Plan {
	r := &run{Snapshot: s, status: s.Job.Status.DeepCopy(), done: map[int]bool{}}
	if ended(s.Job) {
		for _, p := range s.Pods {
			if holds(p) && (p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed) {
				r.plan.Free = append(r.plan.Free, p)
			}
		}
		return r.plan
	}
	if r.status.StartTime == nil && !suspended(s.Job) {
		r.status.StartTime = at(s.Now)
	}
	r.sort()
	r.count()
	failure, message := r.failing()
	switch {
	case failure != "":
		r.end(batchv1.JobFailed, failure, message)
	case suspended(s.Job):
		r.suspend()
	case r.complete():
		r.end(batchv1.JobComplete, "CompletionsReached", "Reached expected number of succeeded pods")
	default:
		r.resume()
		r.fill()
	}
	r.finish()
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

func holds(p *corev1.Pod) bool { return slices.Contains(p.Finalizers, batchv1.JobTrackingFinalizer) }

func at(t time.Time) *metav1.Time {
	m := metav1.NewTime(t.Truncate(time.Second))
	return &m
}

// index answers a pod's completion index, -1 if it has none.
func index(p *corev1.Pod) int {
	n, err := strconv.Atoi(p.Annotations[batchv1.JobCompletionIndexAnnotation])
	if err != nil {
		return -1
	}
	return n
}

func (r *run) sort() {
	for _, p := range r.Pods {
		switch {
		case p.Status.Phase == corev1.PodSucceeded:
			r.succeeded = append(r.succeeded, p)
			r.done[index(p)] = true
		case p.Status.Phase == corev1.PodFailed || p.DeletionTimestamp != nil && p.Spec.NodeName == "":
			r.failed = append(r.failed, p)
		case p.DeletionTimestamp == nil:
			r.active = append(r.active, p)
		}
	}
	for _, i := range indexes(r.status.CompletedIndexes) {
		r.done[i] = true
	}
	slices.SortStableFunc(r.active, func(a, b *corev1.Pod) int { return cmp.Compare(a.Name, b.Name) })
}

// count moves finished pods through uncounted to counted.
func (r *run) count() {
	if r.status.UncountedTerminatedPods == nil {
		r.status.UncountedTerminatedPods = &batchv1.UncountedTerminatedPods{}
	}
	u := r.status.UncountedTerminatedPods
	held := map[types.UID]bool{}
	for _, p := range r.Pods {
		held[p.UID] = holds(p)
	}
	settle := func(list []types.UID, total *int32) []types.UID {
		return slices.DeleteFunc(slices.Clone(list), func(uid types.UID) bool {
			if held[uid] {
				return false
			}
			*total++
			return true
		})
	}
	u.Succeeded, u.Failed = settle(u.Succeeded, &r.status.Succeeded), settle(u.Failed, &r.status.Failed)
	note := func(list []types.UID, pods []*corev1.Pod) []types.UID {
		for _, p := range pods {
			if !holds(p) {
				continue
			}
			if slices.Contains(list, p.UID) {
				r.plan.Free = append(r.plan.Free, p) // it stands in the stored status already
			} else {
				list = append(list, p.UID)
			}
		}
		return list
	}
	u.Succeeded, u.Failed = note(u.Succeeded, r.succeeded), note(u.Failed, r.failed)
	if indexed(r.Job) {
		r.status.CompletedIndexes = text(r.done)
	}
}

func (r *run) succeededTotal() int {
	if indexed(r.Job) {
		return len(r.done) - boolInt(r.done[-1])
	}
	return int(r.status.Succeeded) + len(r.status.UncountedTerminatedPods.Succeeded)
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

func (r *run) failedTotal() int {
	return int(r.status.Failed) + len(r.status.UncountedTerminatedPods.Failed)
}

// failing answers why the job has failed, "" if it has not.
func (r *run) failing() (reason, message string) {
	if d := r.Job.Spec.ActiveDeadlineSeconds; d != nil && r.status.StartTime != nil && !suspended(r.Job) {
		left := r.status.StartTime.Add(time.Duration(*d) * time.Second).Sub(r.Now)
		if left <= 0 {
			return "DeadlineExceeded", "Job was active longer than specified deadline"
		}
		r.plan.Again = left
	}
	limit := int32(6)
	if r.Job.Spec.BackoffLimit != nil {
		limit = *r.Job.Spec.BackoffLimit
	}
	restarts := 0
	if r.Job.Spec.Template.Spec.RestartPolicy == corev1.RestartPolicyOnFailure {
		for _, p := range r.active {
			for _, c := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
				restarts += int(c.RestartCount)
			}
		}
	}
	if r.failedTotal() > int(limit) || restarts > 0 && restarts > int(limit) {
		return "BackoffLimitExceeded", "Job has reached the specified backoff limit"
	}
	return "", ""
}

func (r *run) complete() bool {
	if r.Job.Spec.Completions == nil {
		return r.succeededTotal() > 0 && len(r.active) == 0
	}
	return r.succeededTotal() >= int(*r.Job.Spec.Completions)
}

func (r *run) parallelism() int {
	if r.Job.Spec.Parallelism == nil {
		return 1
	}
	return int(*r.Job.Spec.Parallelism)
}

// fill creates the pods that are missing, and takes those that are too many.
func (r *run) fill() {
	want := r.parallelism()
	if c := r.Job.Spec.Completions; c != nil {
		want = min(want, int(*c)-r.succeededTotal())
	} else if r.succeededTotal() > 0 {
		want = min(want, len(r.active)) // one success ends a job without a number: nothing new is begun
	}
	if !r.Settled {
		return
	}
	diff := want - len(r.active)
	if diff < 0 {
		r.plan.Delete = append(r.plan.Delete, r.active[:-diff]...)
		return
	}
	if diff == 0 {
		return
	}
	if wait := r.backoff(); wait > 0 {
		r.plan.Again = wait
		return
	}
	if !indexed(r.Job) {
		for range diff {
			r.plan.Create = append(r.plan.Create, -1)
		}
		return
	}
	busy := map[int]bool{}
	for _, p := range r.active {
		busy[index(p)] = true
	}
	for i := 0; i < int(*r.Job.Spec.Completions) && diff > 0; i++ {
		if !busy[i] && !r.done[i] {
			r.plan.Create = append(r.plan.Create, i)
			diff--
		}
	}
}

// backoff answers how long the next pod has to wait for the last one's failure.
func (r *run) backoff() time.Duration {
	n := 0
	var last time.Time
	for _, p := range r.failed {
		n++
		if t := endedAt(p); t.After(last) {
			last = t
		}
	}
	if n == 0 || last.IsZero() {
		return 0
	}
	wait := min(firstWait<<min(n-1, 10), lastWait)
	return max(0, last.Add(wait).Sub(r.Now))
}

func endedAt(p *corev1.Pod) time.Time {
	var last time.Time
	for _, c := range p.Status.ContainerStatuses {
		if t := c.State.Terminated; t != nil && t.FinishedAt.After(last) {
			last = t.FinishedAt.Time
		}
	}
	return last
}

// end closes the job: what still runs is deleted.
func (r *run) end(t batchv1.JobConditionType, reason, message string) {
	r.plan.Delete = append(r.plan.Delete, r.active...)
	if len(r.status.UncountedTerminatedPods.Succeeded)+len(r.status.UncountedTerminatedPods.Failed) > 0 || len(r.active) > 0 {
		// It is told when every pod is counted: the numbers of a closed job do not change.
		interim := batchv1.JobSuccessCriteriaMet
		if t == batchv1.JobFailed {
			interim = batchv1.JobFailureTarget
		}
		r.set(interim, reason, message)
		return
	}
	interim := batchv1.JobSuccessCriteriaMet
	if t == batchv1.JobFailed {
		interim = batchv1.JobFailureTarget
	}
	r.set(interim, reason, message)
	r.set(t, reason, message)
	if t == batchv1.JobComplete {
		r.status.CompletionTime = at(r.Now)
	}
}

func (r *run) suspend() {
	r.plan.Delete = append(r.plan.Delete, r.active...)
	r.status.StartTime = nil
	r.set(batchv1.JobSuspended, "JobSuspended", "Job suspended")
}

func (r *run) resume() {
	for i, c := range r.status.Conditions {
		if c.Type == batchv1.JobSuspended && c.Status == corev1.ConditionTrue {
			r.status.Conditions[i].Status, r.status.Conditions[i].Reason, r.status.Conditions[i].Message = corev1.ConditionFalse, "JobResumed", "Job resumed"
			r.status.Conditions[i].LastTransitionTime = *at(r.Now)
			r.status.StartTime = at(r.Now)
		}
	}
}

func (r *run) set(t batchv1.JobConditionType, reason, message string) {
	for i, c := range r.status.Conditions {
		if c.Type == t {
			if c.Status != corev1.ConditionTrue {
				r.status.Conditions[i] = batchv1.JobCondition{Type: t, Status: corev1.ConditionTrue, Reason: reason, Message: message, LastProbeTime: *at(r.Now), LastTransitionTime: *at(r.Now)}
			}
			return
		}
	}
	r.status.Conditions = append(r.status.Conditions, batchv1.JobCondition{Type: t, Status: corev1.ConditionTrue, Reason: reason, Message: message, LastProbeTime: *at(r.Now), LastTransitionTime: *at(r.Now)})
}

// finish counts what runs and writes the status if it changed.
func (r *run) finish() {
	ready, terminating := int32(0), int32(0)
	for _, p := range r.Pods {
		running := p.Status.Phase != corev1.PodSucceeded && p.Status.Phase != corev1.PodFailed
		if running && p.DeletionTimestamp != nil {
			terminating++
		}
	}
	for _, p := range r.active {
		for _, c := range p.Status.Conditions {
			if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue {
				ready++
			}
		}
	}
	r.status.Active, r.status.Ready, r.status.Terminating = int32(len(r.active)), &ready, &terminating
	if !equality.Semantic.DeepEqual(*r.status, r.Job.Status) {
		r.plan.Status = r.status
	}
}

// indexes reads "0,2-4".
func indexes(s string) []int {
	var out []int
	for _, part := range strings.Split(s, ",") {
		from, to, isRange := strings.Cut(part, "-")
		a, err := strconv.Atoi(from)
		if err != nil {
			continue
		}
		b := a
		if isRange {
			if b, err = strconv.Atoi(to); err != nil {
				continue
			}
		}
		for i := a; i <= b; i++ {
			out = append(out, i)
		}
	}
	return out
}

// text writes indexes as "0,2-4".
func text(done map[int]bool) string {
	var all []int
	for i := range done {
		if i >= 0 {
			all = append(all, i)
		}
	}
	slices.Sort(all)
	var parts []string
	for i := 0; i < len(all); {
		j := i
		for j+1 < len(all) && all[j+1] == all[j]+1 {
			j++
		}
		switch j - i {
		case 0:
			parts = append(parts, strconv.Itoa(all[i]))
		case 1:
			parts = append(parts, strconv.Itoa(all[i]), strconv.Itoa(all[j]))
		default:
			parts = append(parts, fmt.Sprintf("%d-%d", all[i], all[j]))
		}
		i = j + 1
	}
	return strings.Join(parts, ",")
}
