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

func names(gone []removal) string {
	var out []string
	for _, r := range gone {
		name := r.pod.Name
		if r.lost {
			name += "?"
		}
		out = append(out, name)
	}
	return strings.Join(out, " ")
}

// known are a node that is well, and two that an admin has given up, of which one is well all the same.
func known() map[string]*corev1.Node {
	out := map[string]*corev1.Node{"here": {}, "broken": {}, "mended": {}}
	for _, name := range []string{"broken", "mended"} {
		out[name].Spec.Taints = []corev1.Taint{{Key: corev1.TaintNodeOutOfService, Effect: corev1.TaintEffectNoExecute}}
	}
	out["mended"].Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
	return out
}

// TestDecide has a row for each rule.
func TestDecide(t *testing.T) {
	finished := []*corev1.Pod{
		pod("new", "here", corev1.PodSucceeded, 1, false), pod("old", "here", corev1.PodFailed, 9, false), pod("mid", "here", corev1.PodSucceeded, 5, false),
		pod("runs", "here", corev1.PodRunning, 20, false), pod("leaving", "here", corev1.PodFailed, 30, true),
	}
	thrown := pod("thrown", "here", corev1.PodFailed, 2, false)
	thrown.Status.Reason = "Evicted"
	for _, c := range []struct {
		rule      string
		pods      []*corev1.Pod
		threshold int
		after     time.Duration // since its node was first missed
		want      string
	}{
		{"finished pods within the bound stay", finished, 3, 0, ""},
		{"the oldest finished pods beyond the bound go", finished, 1, 0, "old mid"},
		{"evicted ones go before older ones", append(slices.Clone(finished), thrown), 3, 0, "thrown"},
		{"no bound keeps all", finished, 0, 0, ""},
		{"a node just missed keeps its pods", []*corev1.Pod{pod("lost", "gone", corev1.PodRunning, 1, false)}, 0, quarantine - time.Second, ""},
		{"a node missed for long loses its pods", []*corev1.Pod{pod("lost", "gone", corev1.PodRunning, 1, false)}, 0, quarantine, "lost?"},
		{"a deleted pod that never got a node goes", []*corev1.Pod{pod("pending", "", corev1.PodPending, 1, true)}, 0, 0, "pending"},
		{"one that waits for a node stays", []*corev1.Pod{pod("pending", "", corev1.PodPending, 1, false)}, 0, 0, ""},
		{"a deleted pod on a node out of service goes", []*corev1.Pod{pod("ends", "broken", corev1.PodRunning, 1, true), pod("runs", "broken", corev1.PodRunning, 1, false)}, 0, 0, "ends"},
		{"one on a node that is well again is its kubelet's", []*corev1.Pod{pod("ends", "mended", corev1.PodRunning, 1, true)}, 0, 0, ""},
		{"a deleted pod on a node is its kubelet's", []*corev1.Pod{pod("ends", "here", corev1.PodRunning, 1, true)}, 0, 0, ""},
	} {
		nodes, missed := known(), map[string]time.Time{"forgotten": start}
		decide(c.pods, nodes, missed, start, c.threshold)
		if got := names(decide(c.pods, nodes, missed, start.Add(c.after), c.threshold)); got != c.want {
			t.Errorf("%s: %q went, not %q", c.rule, got, c.want)
		}
		if _, ok := missed["forgotten"]; ok {
			t.Errorf("%s: a node without pods is still missed", c.rule)
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
		gone := decide(pods, known(), map[string]time.Time{}, start, threshold)
		want := 0
		if threshold > 0 {
			want = max(0, done-threshold)
		}
		if len(gone) != want {
			t.Fatalf("%d of %d finished pods went, %d may stay", len(gone), done, threshold)
		}
		for _, r := range gone {
			if p := r.pod; p.Status.Phase == corev1.PodRunning || p.Status.Phase == corev1.PodPending {
				t.Fatalf("%s went while it was %s", r.pod.Name, r.pod.Status.Phase)
			}
		}
	})
}
