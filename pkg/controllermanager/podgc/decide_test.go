package podgc

import (
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"
)

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// pod is one of a name, made age seconds before start.
func pod(name, node string, phase corev1.PodPhase, age int, deleted bool) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, CreationTimestamp: metav1.NewTime(start.Add(-time.Duration(age) * time.Second))}}
	p.Spec.NodeName, p.Status.Phase = node, phase
	if deleted {
		p.DeletionTimestamp = &metav1.Time{Time: start}
	}
	return p
}

func names(pods []*corev1.Pod) string {
	var out []string
	for _, p := range pods {
		out = append(out, p.Name)
	}
	return strings.Join(out, " ")
}

// TestDecide has a row for each rule.
func TestDecide(t *testing.T) {
	finished := []*corev1.Pod{
		pod("new", "here", corev1.PodSucceeded, 1, false), pod("old", "here", corev1.PodFailed, 9, false), pod("mid", "here", corev1.PodSucceeded, 5, false),
		pod("runs", "here", corev1.PodRunning, 20, false), pod("leaving", "here", corev1.PodFailed, 30, true),
	}
	for _, c := range []struct {
		rule      string
		pods      []*corev1.Pod
		threshold int
		after     time.Duration // since its node was first missed
		want      string
	}{
		{"finished pods within the bound stay", finished, 3, 0, ""},
		{"the oldest finished pods beyond the bound go", finished, 1, 0, "old mid"},
		{"no bound keeps all", finished, 0, 0, ""},
		{"a node just missed keeps its pods", []*corev1.Pod{pod("lost", "gone", corev1.PodRunning, 1, false)}, 0, quarantine - time.Second, ""},
		{"a node missed for long loses its pods", []*corev1.Pod{pod("lost", "gone", corev1.PodRunning, 1, false)}, 0, quarantine, "lost"},
		{"a deleted pod that never got a node goes", []*corev1.Pod{pod("pending", "", corev1.PodPending, 1, true)}, 0, 0, "pending"},
		{"one that waits for a node stays", []*corev1.Pod{pod("pending", "", corev1.PodPending, 1, false)}, 0, 0, ""},
		{"a deleted pod on a node is its kubelet's", []*corev1.Pod{pod("ends", "here", corev1.PodRunning, 1, true)}, 0, 0, ""},
	} {
		nodes, missed := map[string]bool{"here": true}, map[string]time.Time{}
		decide(c.pods, nodes, missed, start, c.threshold)
		if got := names(decide(c.pods, nodes, missed, start.Add(c.after), c.threshold)); got != c.want {
			t.Errorf("%s: %q went, not %q", c.rule, got, c.want)
		}
	}
}

// TestNeverMore holds that no pod that runs on a known node is removed, and never more finished ones than are beyond the bound.
func TestNeverMore(t *testing.T) {
	phases := []corev1.PodPhase{corev1.PodPending, corev1.PodRunning, corev1.PodSucceeded, corev1.PodFailed}
	rapid.Check(t, func(t *rapid.T) {
		var pods []*corev1.Pod
		done := 0
		for i := range rapid.IntRange(0, 20).Draw(t, "pods") {
			p := pod(string(rune('a'+i)), "here", rapid.SampledFrom(phases).Draw(t, "phase"), i, rapid.Bool().Draw(t, "deleted"))
			pods = append(pods, p)
			if p.DeletionTimestamp == nil && slices.Contains(phases[2:], p.Status.Phase) {
				done++
			}
		}
		threshold := rapid.IntRange(0, 10).Draw(t, "threshold")
		gone := decide(pods, map[string]bool{"here": true}, map[string]time.Time{}, start, threshold)
		want := 0
		if threshold > 0 {
			want = max(0, done-threshold)
		}
		if len(gone) != want {
			t.Fatalf("%d of %d finished pods went, %d may stay", len(gone), done, threshold)
		}
		for _, p := range gone {
			if p.Status.Phase == corev1.PodRunning || p.Status.Phase == corev1.PodPending {
				t.Fatalf("%s went while it was %s", p.Name, p.Status.Phase)
			}
		}
	})
}
