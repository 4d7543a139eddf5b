package statefulset

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"pgregory.net/rapid"

	"github.com/sextant-k8s/sextant/pkg/controllermanager/golden"
)

// world plays everybody else: the apiserver, the kubelets and the garbage collector.
type world struct {
	now      time.Time
	set      *appsv1.StatefulSet
	revision string // of the template
	pods     []*corev1.Pod
	claims   []*corev1.PersistentVolumeClaim
	made     int
}

func newWorld(set *appsv1.StatefulSet) *world {
	set.UID = "set"
	return &world{now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), set: set, revision: "web-v1"}
}

func (w *world) turn() string {
	s := Snapshot{Set: w.set.DeepCopy(), Update: w.revision, Current: w.set.Status.CurrentRevision, Now: w.now, Claims: w.claims}
	if s.Current == "" {
		s.Current = w.revision
	}
	for _, p := range w.pods {
		s.Pods = append(s.Pods, p.DeepCopy())
	}
	p := decide(s)
	for _, c := range p.Own {
		i := slices.IndexFunc(w.claims, func(x *corev1.PersistentVolumeClaim) bool { return x.Name == c.Name })
		w.claims[i] = c
	}
	for _, d := range p.Delete {
		w.pod(d.Name).DeletionTimestamp = &metav1.Time{Time: w.now}
	}
	for _, b := range p.Create {
		w.create(b)
	}
	if p.Status != nil {
		w.set.Status = *p.Status
	}
	return p.String()
}

func (w *world) create(b Birth) {
	for _, t := range w.set.Spec.VolumeClaimTemplates {
		name := claimName(w.set, t.Name, b.Ordinal)
		i := slices.IndexFunc(w.claims, func(x *corev1.PersistentVolumeClaim) bool { return x.Name == name })
		if i >= 0 && leaving(w.set, w.claims[i], b.Ordinal) {
			return
		}
		if i < 0 {
			w.claims = append(w.claims, &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: name}})
		}
	}
	w.made++
	w.pods = append(w.pods, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint(w.set.Name, "-", b.Ordinal), UID: types.UID(fmt.Sprint("p", w.made)), Labels: map[string]string{appsv1.ControllerRevisionHashLabelKey: b.Revision}},
		Status:     corev1.PodStatus{Phase: corev1.PodPending},
	})
}

func (w *world) pod(name string) *corev1.Pod {
	for _, p := range w.pods {
		if p.Name == name {
			return p
		}
	}
	return &corev1.Pod{}
}

func (w *world) ready(p *corev1.Pod, is bool) {
	status := corev1.ConditionFalse
	if is {
		status = corev1.ConditionTrue
	}
	p.Status.Phase = corev1.PodRunning
	p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: status, LastTransitionTime: metav1.NewTime(w.now)}}
}

// reap ends the pods that are being deleted, and the claims that go with them.
func (w *world) reap() {
	w.pods = slices.DeleteFunc(w.pods, func(p *corev1.Pod) bool { return p.DeletionTimestamp != nil })
	w.claims = slices.DeleteFunc(w.claims, func(c *corev1.PersistentVolumeClaim) bool {
		return len(c.OwnerReferences) > 0 && !slices.ContainsFunc(c.OwnerReferences, func(r metav1.OwnerReference) bool {
			return r.UID == w.set.UID || w.pod(r.Name).UID == r.UID
		})
	})
}

// rest lets kubelets work: deleted pods end, pending ones are ready.
func (w *world) rest() {
	w.reap()
	for _, p := range w.pods {
		if p.Status.Phase == corev1.PodPending {
			w.ready(p, true)
		}
	}
	w.now = w.now.Add(time.Second)
}

func TestDecide(t *testing.T) {
	golden.Run(t, func(t *testing.T, files map[string]string) string {
		w := newWorld(golden.Object[appsv1.StatefulSet](t, files["set.yaml"]))
		var b strings.Builder
		for line := range strings.Lines(files["script"]) {
			fmt.Fprintf(&b, "> %s", line)
			do(t, w, strings.Fields(line), &b)
		}
		return b.String()
	})
}

func do(t *testing.T, w *world, words []string, b *strings.Builder) {
	switch words[0] {
	case "step":
		b.WriteString(w.turn())
	case "run":
		for range 60 {
			text := w.turn()
			if text == "" {
				return
			}
			fmt.Fprintf(b, "%s.\n", text)
			w.rest()
		}
		t.Fatalf("it never rests:\n%s", b)
	case "rest":
		w.rest()
	case "image":
		w.revision = "web-" + words[1]
	case "scale":
		n := int32(0)
		if _, err := fmt.Sscan(words[1], &n); err != nil {
			t.Fatal(err)
		}
		w.set.Spec.Replicas = &n
	case "begin":
		n := int32(0)
		if _, err := fmt.Sscan(words[1], &n); err != nil {
			t.Fatal(err)
		}
		w.set.Spec.Ordinals = &appsv1.StatefulSetOrdinals{Start: n}
	case "sick", "well":
		w.ready(w.pod(words[1]), words[0] == "well")
	case "fail":
		w.pod(words[1]).Status.Phase = corev1.PodFailed
	case "wait":
		d, err := time.ParseDuration(words[1])
		if err != nil {
			t.Fatal(err)
		}
		w.now = w.now.Add(d)
	case "claims":
		for _, c := range w.claims {
			fmt.Fprintln(b, c.Name)
		}
	default:
		t.Fatalf("no such word: %s", words[0])
	}
}

// TestOrdered: whatever happens, a pod is made only when all before it serve, goes only when none after it is left, and an
// update lets no more be missing than may.
func TestOrdered(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		replicas, partition := rapid.Int32Range(0, 6).Draw(t, "replicas"), rapid.Int32Range(0, 6).Draw(t, "partition")
		most := intstr.FromInt32(rapid.Int32Range(1, 3).Draw(t, "missing"))
		start := rapid.Int32Range(0, 2).Draw(t, "start")
		w := newWorld(&appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Name: "web"}, Spec: appsv1.StatefulSetSpec{
			Replicas: &replicas, Ordinals: &appsv1.StatefulSetOrdinals{Start: start},
			UpdateStrategy: appsv1.StatefulSetUpdateStrategy{Type: appsv1.RollingUpdateStatefulSetStrategyType, RollingUpdate: &appsv1.RollingUpdateStatefulSetStrategy{Partition: &partition, MaxUnavailable: &most}},
		}})
		for range rapid.IntRange(1, 40).Draw(t, "moves") {
			switch rapid.IntRange(0, 6).Draw(t, "move") {
			case 0:
				w.revision = fmt.Sprint("web-v", rapid.IntRange(1, 3).Draw(t, "revision"))
			case 1:
				replicas = rapid.Int32Range(0, 6).Draw(t, "scale")
			case 2:
				if len(w.pods) > 0 {
					w.ready(rapid.SampledFrom(w.pods).Draw(t, "pod"), rapid.Bool().Draw(t, "ready"))
				}
			case 3:
				w.reap()
			default:
				step(t, w, int(start), int(replicas), int(start+partition), most.IntValue())
			}
		}
		for range 100 {
			for _, p := range w.pods {
				if _, ok := readySince(p); !ok {
					w.ready(p, true)
				}
			}
			w.turn()
			w.rest()
		}
		if text := w.turn(); text != "" || len(w.pods) != int(replicas) {
			t.Fatalf("it does not come to rest at %d: %v\n%s", replicas, w.set.Status, text)
		}
	})
}

func step(t *rapid.T, w *world, first, want, partition, most int) {
	before := map[int]*corev1.Pod{}
	serving := 0
	for _, p := range w.pods {
		n := ordinal(w.set, p)
		before[n] = p.DeepCopy()
		if _, ok := readySince(p); ok && p.DeletionTimestamp == nil && n >= first && n < first+want {
			serving++
		}
	}
	text := w.turn()
	lost := 0
	for _, p := range w.pods {
		n := ordinal(w.set, p)
		was := before[n]
		if was == nil {
			for i := first; i < n; i++ {
				if b := before[i]; b == nil || b.DeletionTimestamp != nil {
					t.Fatalf("%d was made before %d is there\n%s", n, i, text)
				} else if _, ok := readySince(b); !ok {
					t.Fatalf("%d was made before %d serves\n%s", n, i, text)
				}
			}
			continue
		}
		if was.DeletionTimestamp != nil || p.DeletionTimestamp == nil {
			continue
		}
		if n >= first+want {
			for i := range before {
				if i > n {
					t.Fatalf("%d goes before %d is gone\n%s", n, i, text)
				}
			}
			continue
		}
		if _, ok := readySince(was); ok && n >= first {
			lost++
			if n < partition {
				t.Fatalf("%d is below the partition %d and goes\n%s", n, partition, text)
			}
		}
	}
	if lost > 0 && serving-lost < want-most {
		t.Fatalf("%d of %d served, %d were taken, %d may be missing\n%s", serving, want, lost, most, text)
	}
}
