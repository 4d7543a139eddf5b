package suite

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// TestResizeOfOwn changes a pod's own size over the wire: on a node that declares it, within its rules, and only through resize.
func TestResizeOfOwn(t *testing.T) {
	t.Parallel()
	s := start(t)
	const at = "/api/v1/namespaces/default/pods"
	s.Must(t, "POST", "/api/v1/namespaces/default/serviceaccounts", `{"metadata":{"name":"default"}}`)
	for name, declares := range map[string]string{"can": `["InPlacePodLevelResourcesVerticalScaling"]`, "cannot": `[]`} {
		s.Must(t, "POST", "/api/v1/nodes", `{"metadata":{"name":"`+name+`"},"status":{"declaredFeatures":`+declares+`}}`)
		s.Must(t, "POST", at, `{"metadata":{"name":"`+name+`"},"spec":{"nodeName":"`+name+`","resources":{"limits":{"cpu":"1","memory":"1Gi"}},
			"initContainers":[{"name":"i","image":"i","resources":{"requests":{"cpu":"0.1","memory":"1000Ki"}}}],
			"containers":[{"name":"c","image":"i","resources":{"requests":{"cpu":"200m"}}}]}}`)
	}
	patch := func(path, body string, want int, says string) *corev1.Pod {
		t.Helper()
		code, _, b := s.Try(t, "PATCH", at+path, body, map[string]string{"Content-Type": "application/strategic-merge-patch+json"})
		if code != want || !strings.Contains(string(b), says) {
			t.Errorf("%s %s: %d %s", path, body, code, b)
		}
		p := &corev1.Pod{}
		if code == http.StatusOK {
			if err := json.Unmarshal(b, p); err != nil {
				t.Error(err)
			}
		}
		return p
	}
	const more = `{"spec":{"resources":{"requests":{"cpu":"500m"},"limits":{"cpu":"2"}}}}`
	p := patch("/can/resize", more, http.StatusOK, "")
	if r := p.Spec.Resources; r == nil || r.Limits.Cpu().String() != "2" || r.Requests.Cpu().String() != "500m" || r.Limits.Memory().String() != "1Gi" || p.Generation != 2 {
		t.Errorf("generation %d, %+v", p.Generation, p.Spec.Resources)
	}
	patch("/cannot/resize", more, http.StatusForbidden, `pod update requires features InPlacePodLevelResourcesVerticalScaling which are not available on node \"cannot\"`)
	patch("/cannot/resize", `{"spec":{"containers":[{"name":"c","resources":{"requests":{"cpu":"150m"}}}]}}`, http.StatusOK, "")
	patch("/cannot", `{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"j"}]}}`, http.StatusOK, "")
	patch("/can", more, http.StatusOK, "") // nothing changes
	patch("/can", `{"spec":{"resources":{"limits":{"cpu":"3"}}}}`, http.StatusUnprocessableEntity, "pod updates may not change fields other than")
	patch("/can/resize", `{"spec":{"resources":{"requests":{"cpu":"100m"}}}}`, http.StatusUnprocessableEntity, "must be greater than or equal to aggregate container requests of 200m")
	patch("/can/resize", `{"spec":{"resources":null}}`, http.StatusUnprocessableEntity, "pod-level resources cannot be removed")
	patch("/can/resize", `{"spec":{"containers":[{"name":"d","image":"i"}]}}`, http.StatusUnprocessableEntity, "containers may not be added or removed on resize")
	patch("/can/status", `{"status":{"resources":{"limits":{"cpu":"2"}},"allocatedResources":{"cpu":"500m"}}}`, http.StatusOK, "")
	p = patch("/can/resize", `{"spec":{"resources":{"requests":{"cpu":"1"}}}}`, http.StatusOK, "")
	if st := p.Status; st.Resources == nil || st.Resources.Limits.Cpu().String() != "2" || st.AllocatedResources.Cpu().String() != "500m" {
		t.Errorf("%+v", st)
	}
}
