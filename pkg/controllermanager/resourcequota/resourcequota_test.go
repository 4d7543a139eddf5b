package resourcequota

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/sextant-k8s/sextant/pkg/controllermanager/runtime"
)

// Where a pod runs is nothing that a quota counts: a count for it would meet pods that are charged but not yet there.
func TestRespecified(t *testing.T) {
	was := &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c"}}}}
	bound, shorter := was.DeepCopy(), was.DeepCopy()
	bound.Spec.NodeName = "n"
	shorter.Spec.ActiveDeadlineSeconds = new(int64)
	if respecified(was, bound) {
		t.Error("a binding is counted anew")
	}
	if !respecified(was, shorter) {
		t.Error("a deadline is not counted anew")
	}
}

func TestUnsettled(t *testing.T) {
	c := &controller{stands: map[runtime.Key]stand{}}
	key, start := runtime.Key{Namespace: "n", Name: "q"}, time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	at := func(d time.Duration) time.Time { return start.Add(d) }
	c.stood(key, "1", start)
	if left := c.unsettled(key, "1", at(50*time.Millisecond)); left != 150*time.Millisecond {
		t.Errorf("a quota charged 50 ms ago is given back to in %s", left)
	}
	if left := c.unsettled(key, "1", at(settle)); left > 0 {
		t.Errorf("a quota that stood still has to wait for %s", left)
	}
	// The cache may know of a charge before its event is here.
	if left := c.unsettled(key, "2", at(time.Second)); left != settle {
		t.Errorf("a charge not heard of is waited for by %s", left)
	}
	// A quota that is charged all the time is given back to all the same.
	late := at(time.Second)
	for v := byte('3'); late.Before(at(time.Second + patience)); v++ {
		if left := c.unsettled(key, string(v), late); left <= 0 {
			t.Fatalf("given back %s after the first wish, in the middle of charges", late.Sub(at(time.Second)))
		}
		late = late.Add(100 * time.Millisecond)
	}
	if left := c.unsettled(key, "new", late); left > 0 {
		t.Errorf("a quota never at rest waits for another %s", left)
	}
}
