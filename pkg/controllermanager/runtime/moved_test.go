package runtime

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Who keeps a number of pods hears of a pod's way and end, and not of the rest.
func TestMoved(t *testing.T) {
	at := metav1.NewTime(time.Unix(1000, 0))
	for _, c := range []struct {
		what   string
		change func(*corev1.Pod)
		counts bool
	}{
		{"nothing", func(*corev1.Pod) {}, false},
		{"an annotation", func(p *corev1.Pod) { p.Annotations = map[string]string{"a": "b"} }, false},
		{"an address", func(p *corev1.Pod) { p.Status.PodIP = "10.0.0.1" }, false},
		{"another condition", func(p *corev1.Pod) {
			p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{Type: "Mine"})
		}, false},
		{"a label", func(p *corev1.Pod) { p.Labels = map[string]string{"a": "b"} }, true},
		{"its node", func(p *corev1.Pod) { p.Spec.NodeName = "n" }, true},
		{"its phase", func(p *corev1.Pod) { p.Status.Phase = corev1.PodRunning }, true},
		{"not ready any more", func(p *corev1.Pod) { p.Status.Conditions[0].Status = corev1.ConditionFalse }, true},
		{"ready anew", func(p *corev1.Pod) { p.Status.Conditions[0].LastTransitionTime = metav1.NewTime(at.Add(time.Second)) }, true},
		{"about to go", func(p *corev1.Pod) { p.DeletionTimestamp = &at }, true},
		{"let go", func(p *corev1.Pod) { p.OwnerReferences = nil }, true},
		{"another of its name", func(p *corev1.Pod) { p.UID = "2" }, true},
	} {
		old := &corev1.Pod{}
		old.UID, old.Status.Phase = "1", corev1.PodPending
		old.OwnerReferences = []metav1.OwnerReference{{Kind: "ReplicaSet", Name: "r", UID: "r", Controller: new(true)}}
		old.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: at}}
		p := old.DeepCopy()
		c.change(p)
		if got := len(Moved(All)(old, p)) > 0; got != c.counts {
			t.Errorf("%s: told %v; want %v", c.what, got, c.counts)
		}
		if len(Moved(All)(nil, p)) == 0 {
			t.Errorf("%s: a pod that appears or goes brought nothing", c.what)
		}
	}
}
