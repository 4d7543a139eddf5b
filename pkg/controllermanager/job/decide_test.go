package job

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"

	"github.com/sextant-k8s/sextant/pkg/controllermanager/golden"
)

// TestDecide plays scripts: each line changes the job, ends pods, or lets the job decide until it has nothing to do.
func TestDecide(t *testing.T) {
	golden.Run(t, func(t *testing.T, files map[string]string) string {
		w := newWorld(golden.Object[batchv1.Job](t, files["job.yaml"]))
		var b strings.Builder
		for line := range strings.Lines(files["script"]) {
			fmt.Fprintf(&b, "> %s", line)
			do(t, w, strings.Fields(line), &b)
		}
		return b.String()
	})
}

func do(t *testing.T, w *world, words []string, b *strings.Builder) {
	n := int32(0)
	if len(words) > 1 {
		_, _ = fmt.Sscan(words[len(words)-1], &n) // not every word has a number
	}
	switch words[0] {
	case "run":
		for i := range 50 {
			text, p := w.turn()
			b.WriteString(text)
			if p.Status == nil && len(p.Create)+len(p.Free)+len(p.Drop)+len(p.End) == 0 {
				return
			}
			b.WriteString(".\n")
			if i == 49 {
				t.Fatalf("it never rests:\n%s", b)
			}
		}
	case "start":
		w.start()
	case "succeed":
		w.end(w.pod(words[1]), 0)
	case "fail":
		w.end(w.pod(words[1]), n)
	case "evict":
		p := w.pod(words[1])
		w.end(p, 137)
		p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue})
		w.delete(words[1])
	case "delete":
		w.delete(words[1])
	case "reap":
		w.reap()
	case "wait":
		d, err := time.ParseDuration(words[1])
		if err != nil {
			t.Fatal(err)
		}
		w.now = w.now.Add(d)
	case "suspend", "resume":
		w.job.Spec.Suspend = new(words[0] == "suspend")
	case "parallelism":
		w.job.Spec.Parallelism = &n
	case "completions":
		w.job.Spec.Completions = &n
	case "show":
		b.WriteString(w.String())
	default:
		t.Fatalf("no such word: %s", words[0])
	}
}

// TestExactlyOnce: however pods end, are deleted and vanish, each is counted once, no index is worked on twice at a time,
// and never do more run than may.
func TestExactlyOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		mode := batchv1.NonIndexedCompletion
		if rapid.Bool().Draw(t, "indexed") {
			mode = batchv1.IndexedCompletion
		}
		parallel, completions := rapid.Int32Range(1, 4).Draw(t, "parallelism"), rapid.Int32Range(1, 6).Draw(t, "completions")
		w := newWorld(&batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: "j", Namespace: "ns"}, Spec: batchv1.JobSpec{
			CompletionMode: &mode, Parallelism: &parallel, Completions: &completions, BackoffLimit: new(int32(1000)),
		}})
		if mode == batchv1.IndexedCompletion && rapid.Bool().Draw(t, "per index") {
			w.job.Spec.BackoffLimitPerIndex = new(rapid.Int32Range(0, 2).Draw(t, "limit"))
		}
		if rapid.Bool().Draw(t, "patient") {
			w.job.Spec.PodReplacementPolicy = new(batchv1.Failed)
		}
		good, bad := 0, 0 // pods that ended while the job went on
		for range rapid.IntRange(1, 60).Draw(t, "moves") {
			alive := slices.DeleteFunc(slices.Clone(w.pods), func(p *corev1.Pod) bool { return over(p) || p.DeletionTimestamp != nil })
			switch move := rapid.IntRange(0, 6).Draw(t, "move"); {
			case move < 2 || len(alive) == 0:
				w.now = w.now.Add(11 * time.Minute)
				w.turn()
				w.start()
			case ended(w.job):
			case move < 4:
				w.end(rapid.SampledFrom(alive).Draw(t, "good"), 0)
				good++
			case move < 6:
				w.end(rapid.SampledFrom(alive).Draw(t, "bad"), 1)
				bad++
			default:
				w.reap()
			}
			once(t, w, int(parallel), good, bad)
		}
		for range 200 {
			w.now = w.now.Add(11 * time.Minute)
			if w.turn(); ended(w.job) {
				break
			}
			w.start()
			w.reap()
			for _, p := range w.pods {
				if !over(p) && p.DeletionTimestamp == nil {
					w.end(p, 0)
					good++
				}
			}
		}
		if !ended(w.job) {
			t.Fatalf("it never ends: %v\n%s", w.job.Status, w)
		}
		once(t, w, int(parallel), good, bad)
		s := w.job.Status
		if s.Active != 0 || s.UncountedTerminatedPods != nil && len(s.UncountedTerminatedPods.Failed)+len(s.UncountedTerminatedPods.Succeeded) > 0 {
			t.Fatalf("it is over, but %v", s)
		}
		if s.CompletionTime != nil && mode == batchv1.NonIndexedCompletion && int(s.Succeeded) != good {
			t.Fatalf("%d succeeded, %d are counted", good, s.Succeeded)
		}
		if s.CompletionTime != nil && int(s.Failed) != bad {
			t.Fatalf("%d failed, %d are counted", bad, s.Failed)
		}
		w.turn()
		for _, p := range w.pods {
			if holds(p) {
				t.Fatalf("%s is held for ever", p.Name)
			}
		}
	})
}

func once(t *rapid.T, w *world, parallel, good, bad int) {
	s := w.job.Status
	if int(s.Succeeded) > good || int(s.Failed) > bad && s.CompletionTime != nil {
		t.Fatalf("%d succeeded and %d failed, but the status tells of %d and %d", good, bad, s.Succeeded, s.Failed)
	}
	running, busy := 0, map[int]bool{}
	for _, p := range w.pods {
		if over(p) || p.DeletionTimestamp != nil {
			continue
		}
		running++
		if i := index(p); i >= 0 {
			if busy[i] {
				t.Fatalf("two pods work on %d\n%s", i, w)
			}
			busy[i] = true
		}
	}
	if running > parallel {
		t.Fatalf("%d run, %d may\n%s", running, parallel, w)
	}
}
