package cronjob

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/robfig/cron/v3"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Snapshot is what a decision is made on.
type Snapshot struct {
	CronJob *batchv1.CronJob
	Jobs    []*batchv1.Job // those it controls
	Zone    *time.Location // of the schedule; nil if its name is unknown
	Now     time.Time
}

// Plan is what is to be done, in this order.
type Plan struct {
	Delete []*batchv1.Job
	Create *batchv1.Job
	Status *batchv1.CronJobStatus
	Tell   []Event
	Again  time.Duration
}

// Event is what users are told.
type Event struct{ Type, Reason, Message string }

// String shows the plan as logs and tests do.
func (p Plan) String() string {
	var b strings.Builder
	for _, j := range p.Delete {
		fmt.Fprintf(&b, "delete %s\n", j.Name)
	}
	if j := p.Create; j != nil {
		fmt.Fprintf(&b, "create %s for %s\n", j.Name, j.Annotations[batchv1.CronJobScheduledTimestampAnnotation])
	}
	if s := p.Status; s != nil {
		var active []string
		for _, a := range s.Active {
			active = append(active, a.Name)
		}
		fmt.Fprintf(&b, "status active=%v last=%s success=%s\n", active, clock(s.LastScheduleTime), clock(s.LastSuccessfulTime))
	}
	for _, e := range p.Tell {
		fmt.Fprintf(&b, "tell %s %s: %s\n", e.Type, e.Reason, e.Message)
	}
	if p.Again > 0 {
		fmt.Fprintf(&b, "again in %s\n", p.Again)
	}
	return b.String()
}

func clock(t *metav1.Time) string {
	if t == nil {
		return "never"
	}
	return t.UTC().Format(time.RFC3339)
}

// ended answers how a job ended, "" if it runs.
func ended(j *batchv1.Job) batchv1.JobConditionType {
	for _, c := range j.Status.Conditions {
		if (c.Type == batchv1.JobComplete || c.Type == batchv1.JobFailed) && c.Status == corev1.ConditionTrue {
			return c.Type
		}
	}
	return ""
}

// turn is a decision being made.
type turn struct {
	Snapshot
	plan   Plan
	status *batchv1.CronJobStatus
}

// late is how long after its time the next look is, so that the time has surely come by then.
const late = 100 * time.Millisecond

// manyMissed is from how many missed times on it is told that there is something wrong.
const manyMissed = 100

// decide starts the job whose time has come, if any, and forgets old ones.
func decide(s Snapshot) Plan {
	t := &turn{Snapshot: s, status: s.CronJob.Status.DeepCopy()}
	t.active()
	t.forget()
	if s.CronJob.DeletionTimestamp == nil {
		t.schedule()
	}
	if !equality.Semantic.DeepEqual(*t.status, s.CronJob.Status) {
		t.plan.Status = t.status
	}
	return t.plan
}

func (t *turn) tell(kind, reason, format string, args ...any) {
	t.plan.Tell = append(t.plan.Tell, Event{kind, reason, fmt.Sprintf(format, args...)})
}

// active keeps the status' list equal to the jobs that run.
func (t *turn) active() {
	jobs := map[types.UID]*batchv1.Job{}
	for _, j := range t.Jobs {
		jobs[j.UID] = j
	}
	t.status.Active = slices.DeleteFunc(t.status.Active, func(r corev1.ObjectReference) bool {
		j := jobs[r.UID]
		if j == nil {
			t.tell(corev1.EventTypeNormal, "MissingJob", "Active job went missing: %v", r.Name)
			return true
		}
		if how := ended(j); how != "" {
			t.tell(corev1.EventTypeNormal, "SawCompletedJob", "Saw completed job: %s, condition: %v", j.Name, how)
			return true
		}
		return false
	})
	for _, j := range t.Jobs {
		t.remember(j)
		how := ended(j)
		known := slices.ContainsFunc(t.status.Active, func(r corev1.ObjectReference) bool { return r.UID == j.UID })
		if how == "" && !known {
			// The last turn may have ended between making it and writing that down.
			t.tell(corev1.EventTypeWarning, "UnexpectedJob", "Saw a job that the controller did not create or forgot: %s", j.Name)
			t.status.Active = append(t.status.Active, reference(j))
		}
		if end := j.Status.CompletionTime; how == batchv1.JobComplete && end != nil && (t.status.LastSuccessfulTime == nil || end.After(t.status.LastSuccessfulTime.Time)) {
			t.status.LastSuccessfulTime = end
		}
	}
	if len(t.status.Active) == 0 {
		t.status.Active = nil
	}
}

// remember has the status know of the time that a job was made for: the last turn may have ended before it was written down, and once the
// job is gone its time would be due again.
func (t *turn) remember(j *batchv1.Job) {
	at, err := time.Parse(time.RFC3339, j.Annotations[batchv1.CronJobScheduledTimestampAnnotation])
	if err != nil || at.After(t.Now) {
		return // it was made by hand, or says what cannot be
	}
	if last := t.status.LastScheduleTime; last == nil || at.After(last.Time) {
		t.status.LastScheduleTime = &metav1.Time{Time: at}
	}
}

func reference(j *batchv1.Job) corev1.ObjectReference {
	return corev1.ObjectReference{APIVersion: "batch/v1", Kind: "Job", Namespace: j.Namespace, Name: j.Name, UID: j.UID, ResourceVersion: j.ResourceVersion}
}

// forget plans the end of the oldest jobs beyond what is to be kept of each kind.
func (t *turn) forget() {
	for _, x := range []struct {
		how   batchv1.JobConditionType
		limit *int32
	}{{batchv1.JobComplete, t.CronJob.Spec.SuccessfulJobsHistoryLimit}, {batchv1.JobFailed, t.CronJob.Spec.FailedJobsHistoryLimit}} {
		if x.limit == nil {
			continue
		}
		var list []*batchv1.Job
		for _, j := range t.Jobs {
			if ended(j) == x.how && j.DeletionTimestamp == nil {
				list = append(list, j)
			}
		}
		slices.SortFunc(list, func(a, b *batchv1.Job) int {
			if c := started(a).Compare(started(b)); c != 0 {
				return c
			}
			return cmp.Compare(a.Name, b.Name)
		})
		t.plan.Delete = append(t.plan.Delete, list[:max(0, len(list)-int(*x.limit))]...)
	}
}

func started(j *batchv1.Job) time.Time {
	if j.Status.StartTime == nil {
		return j.CreationTimestamp.Time
	}
	return j.Status.StartTime.Time
}

// schedule starts the job whose time has come, unless something is against it.
func (t *turn) schedule() {
	spec := &t.CronJob.Spec
	if t.Zone == nil {
		t.tell(corev1.EventTypeWarning, "UnknownTimeZone", "invalid timeZone: %q", *spec.TimeZone)
		return
	}
	if spec.Suspend != nil && *spec.Suspend {
		return
	}
	sched, err := cron.ParseStandard(spec.Schedule)
	if err != nil {
		t.tell(corev1.EventTypeWarning, "UnparseableSchedule", "unparseable schedule: %q : %s", spec.Schedule, err)
		return
	}
	now := t.Now.In(t.Zone)
	due, missed := t.due(sched, now)
	if missed > manyMissed {
		t.tell(corev1.EventTypeWarning, "TooManyMissedTimes", "too many missed start times: %d. Set or decrease .spec.startingDeadlineSeconds or check clock skew", missed)
	}
	if next := sched.Next(now); !next.IsZero() {
		t.plan.Again = next.Sub(now) + late
	}
	if due.IsZero() {
		return
	}
	if d := spec.StartingDeadlineSeconds; d != nil && due.Add(time.Duration(*d)*time.Second).Before(now) {
		t.tell(corev1.EventTypeWarning, "MissSchedule", "Missed scheduled time to start a job: %s", due.UTC().Format(time.RFC1123Z))
		return
	}
	name := jobName(t.CronJob, due)
	if last := t.status.LastScheduleTime; last != nil && last.Time.Equal(due) || slices.ContainsFunc(t.status.Active, func(r corev1.ObjectReference) bool { return r.Name == name }) {
		return
	}
	if len(t.status.Active) > 0 {
		switch spec.ConcurrencyPolicy {
		case batchv1.ForbidConcurrent:
			t.tell(corev1.EventTypeNormal, "JobAlreadyActive", "Not starting job because prior execution is running and concurrency policy is Forbid")
			return
		case batchv1.ReplaceConcurrent:
			t.replace()
		}
	}
	t.plan.Create = t.job(name, due)
	t.status.LastScheduleTime = &metav1.Time{Time: due}
}

// due answers the last time that has come since the last job, zero if none has, and how many there were.
func (t *turn) due(sched cron.Schedule, now time.Time) (last time.Time, n int) {
	from := t.CronJob.CreationTimestamp.Time
	if l := t.status.LastScheduleTime; l != nil {
		from = l.Time
	}
	if d := t.CronJob.Spec.StartingDeadlineSeconds; d != nil {
		if early := now.Add(-time.Duration(*d) * time.Second); early.After(from) {
			from = early
		}
	}
	// After a long silence there may be very many: from half of the time on is enough, as long as one is in it.
	for at := sched.Next(from.In(t.Zone)); !at.IsZero() && !at.After(now); at = sched.Next(at) {
		last = at
		if n++; n > manyMissed {
			if half := at.Add(now.Sub(at) / 2); half.After(at) {
				if jump := sched.Next(half); !jump.IsZero() && !jump.After(now) {
					at, last = jump, jump
				}
			}
		}
	}
	return last, n
}

// replace plans the end of the jobs that run.
func (t *turn) replace() {
	for _, j := range t.Jobs {
		if ended(j) == "" && j.DeletionTimestamp == nil {
			t.plan.Delete = append(t.plan.Delete, j)
		}
	}
	t.status.Active = nil
}

// jobName names the job of a time, so that none is made twice.
func jobName(c *batchv1.CronJob, at time.Time) string {
	return fmt.Sprintf("%s-%d", c.Name, at.Unix()/60)
}

func (t *turn) job(name string, at time.Time) *batchv1.Job {
	tmpl := t.CronJob.Spec.JobTemplate.DeepCopy()
	notes := maps.Clone(tmpl.Annotations)
	if notes == nil {
		notes = map[string]string{}
	}
	notes[batchv1.CronJobScheduledTimestampAnnotation] = at.Format(time.RFC3339)
	return &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: t.CronJob.Namespace, Name: name, Labels: tmpl.Labels, Annotations: notes, CreationTimestamp: metav1.Time{Time: at},
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(t.CronJob, kind)},
		},
		Spec: tmpl.Spec,
	}
}
