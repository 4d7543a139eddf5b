package server

import (
	"bytes"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestFairness shows whose rules a request fell under, and follows what they say when it changes.
func TestFairness(t *testing.T) {
	t.Parallel()
	s := start(t)
	uid := func(path string) string {
		t.Helper()
		_, _, b := s.Try(t, "GET", "/apis/flowcontrol.apiserver.k8s.io/v1/"+path, "", nil)
		_, rest, _ := strings.Cut(string(b), `"uid":"`)
		id, _, _ := strings.Cut(rest, `"`)
		return id
	}
	as := map[string]string{"Impersonate-User": "ann", "Impersonate-Group": "dev"}
	wantFlow, wantLevel := uid("flowschemas/global-default"), uid("prioritylevelconfigurations/global-default") // the cache has them now
	_, h, _ := s.Try(t, "GET", "/api/v1/namespaces/default/pods", "", as)
	if got := h.Get("X-Kubernetes-PF-FlowSchema-UID"); got != wantFlow || got == "" {
		t.Errorf("the flow schema is %q, want %q", got, wantFlow)
	}
	if got := h.Get("X-Kubernetes-PF-PriorityLevel-UID"); got != wantLevel || got == "" {
		t.Errorf("the priority level is %q, want %q", got, wantLevel)
	}
	const level = `{"apiVersion":"flowcontrol.apiserver.k8s.io/v1","kind":"PriorityLevelConfiguration","metadata":{"name":"none"},"spec":{"type":"Limited","limited":{"nominalConcurrencyShares":0,"borrowingLimitPercent":0,"limitResponse":{"type":"Reject"}}}}`
	const schema = `{"apiVersion":"flowcontrol.apiserver.k8s.io/v1","kind":"FlowSchema","metadata":{"name":"ann"},"spec":{"matchingPrecedence":1000,"priorityLevelConfiguration":{"name":"none"},"rules":[{"subjects":[{"kind":"User","user":{"name":"ann"}}],"nonResourceRules":[{"verbs":["*"],"nonResourceURLs":["*"]}]}]}}`
	for path, body := range map[string]string{"prioritylevelconfigurations": level, "flowschemas": schema} {
		if code, _, b := s.Try(t, "POST", "/apis/flowcontrol.apiserver.k8s.io/v1/"+path, body, nil); code != http.StatusCreated {
			t.Fatalf("creating: %d %s", code, b)
		}
	}
	want := uid("flowschemas/ann")
	if code, h, b := s.Try(t, "GET", "/version", "", as); code != http.StatusOK || h.Get("X-Kubernetes-PF-FlowSchema-UID") != want {
		t.Errorf("the only one at a level without seats: %d %s under %v", code, b, h)
	}
	if _, _, b := s.Try(t, "GET", "/debug/api_priority_and_fairness/dump_priority_levels", "", nil); !bytes.Contains(b, []byte("\nnone, 0, true, false, 0, 0\n")) {
		t.Errorf("told %s", b)
	}
	if _, _, b := s.Try(t, "GET", "/metrics", "", nil); !bytes.Contains(b, []byte(fmt.Sprintf("apiserver_flowcontrol_dispatched_requests_total{flow_schema=%q,priority_level=%q} ", "ann", "none"))) {
		t.Error("the metrics do not count it")
	}
}

// TestDanglingFlowSchemas tells whether the level of a schema is there.
func TestDanglingFlowSchemas(t *testing.T) {
	t.Parallel()
	s := start(t)
	const schemas, levels = "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas", "/apis/flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations"
	await := func(want string) {
		t.Helper()
		var b []byte
		for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
			if b = s.Must(t, "GET", schemas+"/hangs", ""); bytes.Contains(b, []byte(want)) {
				return
			}
		}
		t.Errorf("the schema is %s, not %s", b, want)
	}
	s.Must(t, "POST", schemas, `{"metadata":{"name":"hangs"},"spec":{"priorityLevelConfiguration":{"name":"later"},"matchingPrecedence":500,"rules":[]}}`)
	await(`"reason":"NotFound"`)
	s.Must(t, "POST", levels, `{"metadata":{"name":"later"},"spec":{"type":"Limited","limited":{"nominalConcurrencyShares":1,"limitResponse":{"type":"Reject"}}}}`)
	await(`"status":"False"`)
	s.Must(t, "DELETE", levels+"/later", "")
	await(`"status":"True"`)
	if _, _, b := s.Try(t, "GET", "/debug/api_priority_and_fairness/dump_requests?includeRequestDetails=1", "", nil); !bytes.HasPrefix(b, []byte("PriorityLevelName, FlowSchemaName, QueueIndex")) {
		t.Errorf("the requests that wait are told as %s", b)
	}
}
