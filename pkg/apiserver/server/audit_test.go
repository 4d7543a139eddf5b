package server

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
)

const auditPolicy = `
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
omitManagedFields: true
rules:
- level: None
  nonResourceURLs: ["/readyz*"]
- level: Metadata
  resources: [{group: "", resources: [secrets]}]
- level: RequestResponse
  namespaces: [default]
  resources: [{group: "", resources: [configmaps]}]
- level: Metadata
`

// TestAuditLog writes down who did what, and no secret.
func TestAuditLog(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "audit.log")
	if err := os.WriteFile(filepath.Join(dir, "policy.yaml"), []byte(auditPolicy), 0o600); err != nil {
		t.Fatal(err)
	}
	s := start(t, func(c *Config) { c.Audit.PolicyFile, c.Audit.Log.Path = filepath.Join(dir, "policy.yaml"), file })
	ask := func(id, method, path, body string, headers map[string]string) {
		t.Helper()
		h := map[string]string{"Audit-Id": id}
		for k, v := range headers {
			h[k] = v
		}
		if _, got, _ := s.Try(t, method, path, body, h); got.Get("Audit-Id") != id {
			t.Errorf("the answer's audit id is %q", got.Get("Audit-Id"))
		}
	}
	ask("secret", "POST", "/api/v1/namespaces/default/secrets", `{"metadata":{"name":"s"},"stringData":{"k":"hunter2"}}`, nil)
	ask("map", "POST", "/api/v1/namespaces/default/configmaps", `{"metadata":{"name":"m"},"data":{"k":"v"}}`, nil)
	ask("as", "GET", "/api/v1/namespaces/default/pods/x", "", map[string]string{"Impersonate-User": "ann"})
	ask("nobody", "GET", "/api/v1/pods", "", map[string]string{"Authorization": "Bearer wrong"})
	ask("missing", "GET", "/api/v1/namespaces/default/configmaps/none", "", nil)
	ask("gone", "DELETE", "/api/v1/namespaces/default/configmaps/m", "", nil)
	events := awaitEvents(t, file, "gone")
	if b, err := os.ReadFile(file); err != nil || bytes.Contains(b, []byte("hunter2")) || bytes.Contains(b, []byte("aHVudGVyMg")) || bytes.Contains(b, []byte("/readyz")) {
		t.Errorf("the log tells what it must not (%v)", err)
	}
	e := events["secret"]
	if e.Level != auditv1.LevelMetadata || e.Stage != auditv1.StageResponseComplete || e.Verb != "create" || e.ObjectRef.Name != "s" || e.ObjectRef.Resource != "secrets" ||
		e.User.Username != "system:admin" || e.ResponseStatus.Code != 201 || e.RequestObject != nil || e.Annotations["authorization.k8s.io/decision"] != "allow" {
		t.Errorf("the secret's event: %+v", e)
	}
	e = events["map"]
	if e.RequestObject == nil || !strings.Contains(string(e.RequestObject.Raw), `"v"`) || e.ResponseObject == nil || !strings.Contains(string(e.ResponseObject.Raw), `"uid"`) ||
		strings.Contains(string(e.ResponseObject.Raw), "managedFields") {
		t.Errorf("the config map's event: %+v", e)
	}
	e = events["as"]
	if e.ImpersonatedUser == nil || e.ImpersonatedUser.Username != "ann" || e.Annotations["authorization.k8s.io/decision"] != "forbid" || e.ResponseStatus.Code != 403 || e.ResponseStatus.Reason != "Forbidden" {
		t.Errorf("the impersonated event: %+v", e)
	}
	e = events["nobody"]
	if e.Stage != auditv1.StageResponseStarted || e.ResponseStatus.Code != 401 || e.ResponseStatus.Message != "Authentication failed, attempted: bearer" {
		t.Errorf("the event of nobody: %+v", e)
	}
	if e = events["missing"]; e.ResponseStatus.Reason != "NotFound" || e.ResponseStatus.Message == "" {
		t.Errorf("the event of what is missing: %+v", e.ResponseStatus)
	}
	if e = events["gone"]; e.ResponseStatus.Status != "Success" {
		t.Errorf("the event of a removal: %+v", e.ResponseStatus)
	}
}

// awaitEvents reads the log until an event is in it, and answers the last of each id.
func awaitEvents(t *testing.T, file, id string) map[string]auditv1.Event {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		events := map[string]auditv1.Event{}
		b, err := os.ReadFile(file)
		for _, line := range bytes.Split(b, []byte("\n")) {
			var e auditv1.Event
			if len(line) > 0 && json.Unmarshal(line, &e) == nil {
				events[string(e.AuditID)] = e
			}
		}
		if _, ok := events[id]; ok {
			return events
		}
		if time.Now().After(deadline) {
			t.Fatalf("no event %s after 10 s (%v)", id, err)
		}
	}
}
