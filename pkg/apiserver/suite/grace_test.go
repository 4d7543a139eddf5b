package suite

import (
	"encoding/json"
	"fmt"
	"net/http"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// TestGrace deletes pods that nodes run: one whose grace is 0, by its own word or the request's, is gone at once; the grace of one
// that is ending only becomes shorter, and nothing else of it changes by being deleted again.
func TestGrace(t *testing.T) {
	t.Parallel()
	s := start(t)
	const at = "/api/v1/namespaces/default/pods"
	s.Must(t, "POST", "/api/v1/namespaces/default/serviceaccounts", `{"metadata":{"name":"default"}}`)
	pod := func(name string, grace int) {
		t.Helper()
		s.Must(t, "POST", at, fmt.Sprintf(`{"metadata":{"name":%q},"spec":{"nodeName":"n","terminationGracePeriodSeconds":%d,"containers":[{"name":"c","image":"i"}]}}`, name, grace))
	}
	// del deletes; want is the grace afterwards, -1 when the pod is gone.
	del := func(name, options string, want int64) *corev1.Pod {
		t.Helper()
		s.Must(t, "DELETE", at+"/"+name, options)
		code, _, b := s.Try(t, "GET", at+"/"+name, "", nil)
		if want < 0 {
			if code != http.StatusNotFound {
				t.Errorf("%s, deleted with %s, is there: %s", name, options, b)
			}
			return nil
		}
		p := &corev1.Pod{}
		if err := json.Unmarshal(b, p); err != nil || code != http.StatusOK || p.DeletionGracePeriodSeconds == nil || *p.DeletionGracePeriodSeconds != want {
			t.Errorf("%s, deleted with %s: %d %s %v", name, options, code, b, err)
		}
		return p
	}
	pod("own", 0)
	del("own", "", -1)
	pod("asked", 30)
	del("asked", `{"gracePeriodSeconds":0}`, -1)
	pod("below", 30)
	del("below", `{"gracePeriodSeconds":-5}`, 1)
	pod("twice", 30)
	first := del("twice", "", 30)
	del("twice", "", 30)
	del("twice", `{"gracePeriodSeconds":60}`, 30)
	if p := del("twice", `{"propagationPolicy":"Foreground"}`, 30); p != nil && len(p.Finalizers) > 0 {
		t.Errorf("a pod that is ending has now %v", p.Finalizers)
	}
	if p := del("twice", `{"gracePeriodSeconds":10}`, 10); p != nil && !p.DeletionTimestamp.Add(20e9).Equal(first.DeletionTimestamp.Time) {
		t.Errorf("it ends at %v, before it was %v", p.DeletionTimestamp, first.DeletionTimestamp)
	}
	code, _, b := s.Try(t, "PATCH", at+"/twice/status", `{"status":{"phase":"Failed"}}`, map[string]string{"Content-Type": "application/merge-patch+json"})
	if code != http.StatusOK {
		t.Fatalf("%d %s", code, b)
	}
	del("twice", `{"gracePeriodSeconds":20}`, 10) // its node will say when it has ended
	del("twice", `{"gracePeriodSeconds":0}`, -1)
}
