package deployment

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"pgregory.net/rapid"

	"github.com/sextant-k8s/sextant/pkg/controllermanager/golden"
)

// TestDecide plays scripts: each line changes the deployment or lets the world turn.
func TestDecide(t *testing.T) {
	golden.Run(t, func(t *testing.T, files map[string]string) string {
		w := newWorld(golden.Object[appsv1.Deployment](t, files["deployment.yaml"]))
		var b strings.Builder
		for line := range strings.Lines(files["script"]) {
			fmt.Fprintf(&b, "> %s", line)
			do(t, w, strings.Fields(line), &b)
		}
		return b.String()
	})
}

func do(t *testing.T, w *world, words []string, b *strings.Builder) {
	turns := 1
	switch words[0] {
	case "image":
		w.d.Spec.Template.Spec.Containers[0].Image = words[1]
		w.d.Generation++
		return
	case "scale":
		n := int32(0)
		if _, err := fmt.Sscan(words[1], &n); err != nil {
			t.Fatal(err)
		}
		w.d.Spec.Replicas = &n
		w.d.Generation++
		return
	case "pause", "resume":
		w.d.Spec.Paused = words[0] == "pause"
		w.d.Generation++
		return
	case "broken":
		w.broken = words[1]
		return
	case "wait":
		d, err := time.ParseDuration(words[1])
		if err != nil {
			t.Fatal(err)
		}
		w.now = w.now.Add(d)
		return
	case "decide", "fit", "ready", "count": // one of those who act at a time; the rest of the world stands still
		alone(t, w, words, b)
		return
	case "show":
		b.WriteString(w.String())
		return
	case "run":
		turns = 100
	case "step":
		if _, err := fmt.Sscan(words[1], &turns); err != nil {
			t.Fatal(err)
		}
	default:
		t.Fatalf("no such word: %s", words[0])
	}
	for i := range turns {
		text, _ := w.turn()
		if text != "" {
			fmt.Fprintf(b, "%s.\n", text)
		}
		if moved := w.rest(); text == "" && !moved && words[0] == "run" {
			return
		}
		if i == 99 {
			t.Fatalf("it never ends:\n%s", b)
		}
	}
}

// alone lets one part of the world act: the deployment, or for a set its controller (fit, count) or its kubelet (ready).
func alone(t *testing.T, w *world, words []string, b *strings.Builder) {
	if words[0] == "decide" {
		text, _ := w.turn()
		b.WriteString(text)
		return
	}
	i := slices.IndexFunc(w.sets, func(s *appsv1.ReplicaSet) bool { return s.Name == words[1] })
	if i < 0 {
		t.Fatalf("no such set: %s", words[1])
	}
	switch s := w.sets[i]; words[0] {
	case "fit":
		w.fit(s)
	case "ready":
		for j := range w.pods[s.Name] {
			w.pods[s.Name][j] = true
		}
	case "count":
		w.count(s)
	}
}

func some(replicas int32, surge, unavailable intstr.IntOrString) *appsv1.Deployment {
	l := map[string]string{"app": "web"}
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "default"},
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: l}, ProgressDeadlineSeconds: new(int32(600)), RevisionHistoryLimit: new(int32(3)),
			Strategy: appsv1.DeploymentStrategy{Type: appsv1.RollingUpdateDeploymentStrategyType, RollingUpdate: &appsv1.RollingUpdateDeployment{MaxSurge: &surge, MaxUnavailable: &unavailable}},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: l}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "web", Image: "v1"}}}},
		},
	}
}

// TestRollingBounds: however the world is timed and the template changes, an update keeps within its bounds and ends.
func TestRollingBounds(t *testing.T) {
	amount := rapid.OneOf(rapid.Map(rapid.Int32Range(0, 4), intstr.FromInt32), rapid.Map(rapid.IntRange(0, 100), func(n int) intstr.IntOrString { return intstr.FromString(fmt.Sprint(n, "%")) }))
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.Int32Range(0, 12).Draw(t, "replicas")
		w := newWorld(some(n, amount.Draw(t, "surge"), amount.Draw(t, "unavailable")))
		settle(t, w)
		r := &rollout{Snapshot: Snapshot{Deployment: w.d}, d: w.d}
		r.bounds()
		for range rapid.IntRange(1, 40).Draw(t, "moves") {
			switch rapid.IntRange(0, 9).Draw(t, "move") {
			case 0, 1:
				w.d.Spec.Template.Spec.Containers[0].Image = fmt.Sprint("v", rapid.IntRange(1, 4).Draw(t, "image"))
			case 2, 3:
				if len(w.sets) > 0 {
					w.fit(rapid.SampledFrom(w.sets).Draw(t, "set"))
				}
			case 4, 5:
				s := rapid.SampledFrom(w.sets).Draw(t, "set")
				if i := slices.Index(w.pods[s.Name], false); i >= 0 {
					w.pods[s.Name][i] = true
				}
			case 6, 7:
				w.count(rapid.SampledFrom(w.sets).Draw(t, "set"))
			default:
				w.turn()
			}
			within(t, w, n, r.surge, r.unavailable)
		}
		settle(t, w)
		within(t, w, n, r.surge, r.unavailable)
	})
}

// within fails if more pods than allowed are there or asked for, or fewer available ones are left.
func within(t *rapid.T, w *world, want, surge, unavailable int32) {
	asked, there, available := int32(0), int32(0), int32(0)
	for _, s := range w.sets {
		asked += replicas(s)
		there += max(replicas(s), int32(len(w.pods[s.Name])))
		live := int32(0)
		for _, ok := range w.pods[s.Name] {
			if ok {
				live++
			}
		}
		available += min(live, replicas(s))
	}
	if asked > want+surge {
		t.Fatalf("%d pods are asked for, %d+%d may be\n%s", asked, want, surge, w)
	}
	if available < want-unavailable {
		t.Fatalf("%d pods are available of %d, %d may be missing\n%s", available, want, unavailable, w)
	}
}

// settle runs the world until nothing moves, and fails if it never does or ends as something else than was asked for.
func settle(t *rapid.T, w *world) {
	for range 300 {
		text, _ := w.turn()
		if moved := w.rest(); moved || text != "" {
			continue
		}
		if s := w.d.Status; s.AvailableReplicas != *w.d.Spec.Replicas || s.UpdatedReplicas != *w.d.Spec.Replicas || s.Replicas != *w.d.Spec.Replicas {
			t.Fatalf("it ended too early: %+v\n%s", s, w)
		}
		return
	}
	t.Fatalf("it never ends\n%s", w)
}

// TestScalingBounds: scaling in the middle of an update, paused or not, asks for no more than the surge allows.
func TestScalingBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		surge := rapid.Int32Range(0, 4).Draw(t, "surge")
		w := newWorld(some(rapid.Int32Range(1, 12).Draw(t, "replicas"), intstr.FromInt32(surge), intstr.FromInt32(1)))
		settle(t, w)
		for i := range 3 {
			w.d.Spec.Template.Spec.Containers[0].Image = fmt.Sprint("v", i+2)
			for range rapid.IntRange(0, 4).Draw(t, "turns") {
				w.turn()
				w.rest()
			}
			w.d.Spec.Paused = rapid.Bool().Draw(t, "paused")
			n := rapid.Int32Range(0, 20).Draw(t, "scale")
			w.d.Spec.Replicas = &n
			w.turn()
			asked := sum(w.sets, replicas)
			if asked > n+surge {
				t.Fatalf("%d asked for, %d+%d may be\n%s", asked, n, surge, w)
			}
			if w.turn(); n == 0 && w.d.Spec.Paused && sum(w.sets, replicas) > 0 {
				t.Fatalf("scaled to none, but\n%s", w)
			}
			w.rest()
		}
		w.d.Spec.Paused = false
		settle(t, w)
	})
}
