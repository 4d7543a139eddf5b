package resourcequota

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metadatafake "k8s.io/client-go/metadata/fake"

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

// What a pod that the cache does not show yet was charged is not given back.
func TestBehind(t *testing.T) {
	pod := func(name string) *metav1.PartialObjectMetadata {
		return &metav1.PartialObjectMetadata{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}, ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: name}}
	}
	scheme := metadatafake.NewTestScheme()
	if err := metav1.AddMetaToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	c := &controller{stands: map[runtime.Key]stand{}, objects: metadatafake.NewSimpleMetadataClient(scheme, pod("a"), pod("b"))}
	two, none := corev1.ResourceList{"pods": resource.MustParse("2"), "requests.cpu": resource.MustParse("2"), "services": resource.MustParse("0")}, corev1.ResourceList{"pods": resource.MustParse("1"), "requests.cpu": resource.MustParse("0"), "services": resource.MustParse("0")}
	s := Snapshot{Quota: &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Namespace: "n"}, Status: corev1.ResourceQuotaStatus{Used: two}}, Pods: []*corev1.Pod{{}}}
	p := Plan{Status: &corev1.ResourceQuotaStatus{Used: none}}
	if got := p.freed(s.Quota); len(got) != 1 || got[0] != "pods" {
		t.Errorf("something is given back for %v", got)
	}
	for _, x := range []struct {
		shown  int
		behind bool
	}{{1, true}, {2, false}, {3, false}} {
		s.Pods = make([]*corev1.Pod, x.shown)
		if got, err := c.behind(t.Context(), s, p); err != nil || got != x.behind {
			t.Errorf("a cache with %d of two pods is behind: %t, %v", x.shown, got, err)
		}
	}
	key, start := runtime.Key{Namespace: "n", Name: "q"}, time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	if !c.late(key, true, start) || !c.late(key, true, start.Add(tolerance-time.Second)) {
		t.Error("a cache that is behind is not waited for")
	}
	if c.late(key, true, start.Add(tolerance)) {
		t.Error("a cache that is behind for ever is waited for")
	}
	if c.late(key, false, start) || !c.late(key, true, start.Add(2*tolerance)) {
		t.Error("a cache that caught up is not waited for anew")
	}
}
