package daemonset

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

// world plays everybody else: the apiserver, the scheduler and the kubelets.
type world struct {
	now   time.Time
	set   *appsv1.DaemonSet
	nodes []*corev1.Node
	pods  []*corev1.Pod
	hash  string
	made  int
}

func newWorld(set *appsv1.DaemonSet) *world {
	return &world{now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), set: set, hash: "v1"}
}

func (w *world) turn() (string, Plan) {
	s := Snapshot{Set: w.set.DeepCopy(), Hash: w.hash, Nodes: w.nodes, Settled: true, Now: w.now}
	for _, p := range w.pods {
		s.Pods = append(s.Pods, p.DeepCopy())
	}
	p := decide(s)
	for _, d := range slices.Concat(p.Delete, p.Failed) {
		w.pod(d.Name).DeletionTimestamp = &metav1.Time{Time: w.now}
	}
	for _, n := range p.Create {
		w.made++
		pod := newPod(w.set, w.hash, n)
		pod.Name, pod.UID, pod.CreationTimestamp = fmt.Sprint(n, "-", w.made), types.UID(fmt.Sprint(w.made)), metav1.NewTime(w.now.Add(time.Duration(w.made)*time.Millisecond))
		w.pods = append(w.pods, pod)
	}
	if p.Status != nil {
		w.set.Status = *p.Status
	}
	return p.String(), p
}

func (w *world) pod(name string) *corev1.Pod {
	for _, p := range w.pods {
		if p.Name == name {
			return p
		}
	}
	return &corev1.Pod{}
}

func (w *world) reap() {
	w.pods = slices.DeleteFunc(w.pods, func(p *corev1.Pod) bool { return p.DeletionTimestamp != nil })
}

func (w *world) ready(p *corev1.Pod, is bool) {
	status := corev1.ConditionFalse
	if is {
		status = corev1.ConditionTrue
	}
	p.Status.Phase = corev1.PodRunning
	p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: status, LastTransitionTime: metav1.NewTime(w.now)}}
}

// rest lets kubelets work: deleted pods end, new ones are ready.
func (w *world) rest() {
	w.reap()
	for _, p := range w.pods {
		if p.Status.Phase == "" {
			w.ready(p, true)
		}
	}
	w.now = w.now.Add(time.Second)
}

func TestDecide(t *testing.T) {
	golden.Run(t, func(t *testing.T, files map[string]string) string {
		w := newWorld(golden.Object[appsv1.DaemonSet](t, files["set.yaml"]))
		w.nodes = golden.Objects[corev1.Node](t, files["nodes.yaml"])
		var b strings.Builder
		for line := range strings.Lines(files["script"]) {
			fmt.Fprintf(&b, "> %s", line)
			do(t, w, strings.Fields(line), &b)
		}
		return b.String()
	})
}

func do(t *testing.T, w *world, words []string, b *strings.Builder) {
	at := func() int {
		return slices.IndexFunc(w.nodes, func(n *corev1.Node) bool { return n.Name == words[1] })
	}
	switch words[0] {
	case "step":
		text, _ := w.turn()
		b.WriteString(text)
	case "run":
		for range 60 {
			text, _ := w.turn()
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
		w.hash = words[1]
	case "sick", "well":
		w.ready(w.pod(words[1]), words[0] == "well")
	case "fail":
		w.pod(words[1]).Status.Phase = corev1.PodFailed
	case "label":
		n := w.nodes[at()].DeepCopy()
		key, value, _ := strings.Cut(words[2], "=")
		n.Labels = map[string]string{key: value}
		w.nodes[at()] = n
	case "taint":
		n := w.nodes[at()].DeepCopy()
		n.Spec.Taints = []corev1.Taint{{Key: "t", Effect: corev1.TaintEffect(words[2])}}
		w.nodes[at()] = n
	case "lose":
		w.nodes = slices.Delete(w.nodes, at(), at()+1)
	default:
		t.Fatalf("no such word: %s", words[0])
	}
}

// TestBounds: an update never has more pods missing or more nodes with two than it may, and it ends with one new pod on
// every node.
func TestBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		surge, missing := rapid.IntRange(0, 3).Draw(t, "surge"), rapid.IntRange(1, 3).Draw(t, "missing")
		if surge > 0 {
			missing = 0
		}
		u := &appsv1.RollingUpdateDaemonSet{MaxSurge: new(intstr.FromInt(surge)), MaxUnavailable: new(intstr.FromInt(missing))}
		w := newWorld(&appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Name: "agent"}, Spec: appsv1.DaemonSetSpec{UpdateStrategy: appsv1.DaemonSetUpdateStrategy{Type: appsv1.RollingUpdateDaemonSetStrategyType, RollingUpdate: u}}})
		for i := range rapid.IntRange(1, 6).Draw(t, "nodes") {
			w.nodes = append(w.nodes, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("n", i)}})
		}
		for range 3 {
			w.turn()
			w.rest()
		}
		for range rapid.IntRange(1, 40).Draw(t, "moves") {
			switch rapid.IntRange(0, 5).Draw(t, "move") {
			case 0:
				w.hash = fmt.Sprint("v", rapid.IntRange(1, 3).Draw(t, "hash"))
			case 1:
				w.reap()
			case 2:
				if len(w.pods) > 0 {
					w.ready(rapid.SampledFrom(w.pods).Draw(t, "pod"), true)
				}
			default:
				serving := w.serving()
				text, p := w.turn()
				if after := w.serving(); after < serving && after < len(w.nodes)-missing {
					t.Fatalf("%d of %d nodes were served, %d are, %d may be missing\n%s", serving, len(w.nodes), after, missing, text)
				}
				if two := w.two(); two > surge && len(p.Create) > 0 {
					t.Fatalf("%d nodes have two pods, %d may\n%s", two, surge, text)
				}
			}
		}
		for range 60 {
			w.turn()
			w.rest()
		}
		for _, p := range w.pods {
			if p.Labels[appsv1.ControllerRevisionHashLabelKey] != w.hash {
				t.Fatalf("%s stays old", p.Name)
			}
		}
		if text, _ := w.turn(); text != "" || len(w.pods) != len(w.nodes) {
			t.Fatalf("it does not come to rest: %d pods\n%s", len(w.pods), text)
		}
	})
}

// serving is how many nodes have a pod that is ready and stays.
func (w *world) serving() int {
	on := map[string]bool{}
	for _, p := range w.pods {
		if _, ok := ready(p); ok && p.DeletionTimestamp == nil {
			on[node(p)] = true
		}
	}
	return len(on)
}

// two is how many nodes have a serving pod and one more beside it.
func (w *world) two() int {
	on, n := map[string][]*corev1.Pod{}, 0
	for _, p := range w.pods {
		if p.DeletionTimestamp == nil {
			on[node(p)] = append(on[node(p)], p)
		}
	}
	for _, pods := range on {
		if len(pods) > 1 && slices.ContainsFunc(pods, func(p *corev1.Pod) bool {
			_, ok := ready(p)
			return ok && p.Labels[appsv1.ControllerRevisionHashLabelKey] != w.hash
		}) {
			n++
		}
	}
	return n
}
