package cronjob

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sextant-k8s/sextant/pkg/controllermanager/golden"
)

// TestDecide plays scripts: "at 12:05" is when the cron job looks, "complete" and "fail" end jobs, with "die" nothing of the last look was
// written down.
func TestDecide(t *testing.T) {
	golden.Run(t, func(t *testing.T, files map[string]string) string {
		cj := golden.Object[batchv1.CronJob](t, files["cronjob.yaml"])
		cj.CreationTimestamp = metav1.NewTime(time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC))
		zone := time.UTC
		if cj.Spec.TimeZone != nil {
			var err error
			if zone, err = time.LoadLocation(*cj.Spec.TimeZone); err != nil {
				zone = nil
			}
		}
		var b strings.Builder
		var jobs []*batchv1.Job
		now, before := cj.CreationTimestamp.Time, cj.Status
		for line := range strings.Lines(files["script"]) {
			fmt.Fprintf(&b, "> %s", line)
			words := strings.Fields(line)
			switch words[0] {
			case "at":
				at, err := time.Parse("2006-01-02 15:04:05", strings.Join(words[1:], " "))
				if err != nil {
					t.Fatal(err)
				}
				now, before = at, cj.Status
				p := decide(Snapshot{CronJob: cj.DeepCopy(), Jobs: jobs, Zone: zone, Now: at})
				b.WriteString(p.String())
				jobs = slices.DeleteFunc(jobs, func(j *batchv1.Job) bool { return slices.Contains(p.Delete, j) })
				if p.Status != nil {
					cj.Status = *p.Status
				}
				if p.Create != nil {
					p.Create.UID = types.UID(p.Create.Name)
					p.Create.Status.StartTime = &metav1.Time{Time: at}
					jobs = append(jobs, p.Create)
					cj.Status.Active = append(cj.Status.Active, reference(p.Create))
				}
			case "die":
				cj.Status = before
			case "complete", "fail":
				end(t, jobs, words, now)
			case "lose":
				jobs = slices.DeleteFunc(jobs, func(j *batchv1.Job) bool { return j.Name == words[1] })
			case "suspend", "resume":
				cj.Spec.Suspend = new(words[0] == "suspend")
			default:
				t.Fatalf("no such word: %s", words[0])
			}
		}
		return b.String()
	})
}

func end(t *testing.T, jobs []*batchv1.Job, words []string, at time.Time) {
	for i, j := range jobs {
		if j.Name != words[1] {
			continue
		}
		j = j.DeepCopy()
		c := batchv1.JobCondition{Type: batchv1.JobFailed, Status: corev1.ConditionTrue}
		if words[0] == "complete" {
			c.Type = batchv1.JobComplete
			j.Status.CompletionTime = &metav1.Time{Time: at}
		}
		j.Status.Conditions = append(j.Status.Conditions, c)
		jobs[i] = j
		return
	}
	t.Fatalf("no such job: %s", words[1])
}

// TestManyMissed: after a long silence the last time that was missed is found soon, and it is the last.
func TestManyMissed(t *testing.T) {
	born := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, schedule := range []string{"* * * * *", "*/7 3 * * 1-5", "0 0 29 2 *", "@every 13s"} {
		cj := &batchv1.CronJob{ObjectMeta: metav1.ObjectMeta{Name: "c", CreationTimestamp: metav1.NewTime(born)}, Spec: batchv1.CronJobSpec{Schedule: schedule}}
		now := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
		p := decide(Snapshot{CronJob: cj, Zone: time.UTC, Now: now})
		if p.Create == nil {
			t.Errorf("%s: nothing is started", schedule)
			continue
		}
		again := decide(Snapshot{CronJob: &batchv1.CronJob{ObjectMeta: cj.ObjectMeta, Spec: cj.Spec, Status: *p.Status}, Zone: time.UTC, Now: now})
		if again.Create != nil {
			t.Errorf("%s: %s was not the last", schedule, p.Create.Name)
		}
	}
}
