package server

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

func (s *testServer) policy(t *testing.T, kind, name, spec string) {
	t.Helper()
	s.Must(t, "POST", configurations+kind, fmt.Sprintf(`{"metadata":{"name":%q},"spec":%s}`, name, spec))
}

const onConfigMaps = `"matchConstraints":{"resourceRules":[{"apiGroups":[""],"apiVersions":["v1"],"operations":["CREATE","UPDATE"],"resources":["configmaps"]}]}`

func TestValidatingAdmissionPolicy(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.Must(t, "POST", "/api/v1/namespaces", `{"metadata":{"name":"judged","labels":{"limit":"2"}}}`)
	define(t, s.dynamic(t), "limits.example.com", "", `[{"name":"v1","served":true,"storage":true,"schema":{"openAPIV3Schema":{"type":"object","properties":{"most":{"type":"integer"}}}}}]`)
	s.Must(t, "POST", "/apis/limits.example.com/v1/crons", `{"apiVersion":"limits.example.com/v1","kind":"Cron","metadata":{"name":"two"},"most":2}`)
	s.policy(t, "validatingadmissionpolicies", "size", `{`+onConfigMaps+`,"paramKind":{"apiVersion":"limits.example.com/v1","kind":"Cron"},
		"variables":[{"name":"size","expression":"has(object.data) ? size(object.data) : 0"}],
		"matchConditions":[{"name":"named","expression":"object.metadata.name != 'free'"}],
		"validations":[{"expression":"variables.size <= params.most","messageExpression":"'at most ' + string(params.most) + ' in ' + namespaceObject.metadata.name","reason":"Forbidden"}],
		"auditAnnotations":[{"key":"size","valueExpression":"string(variables.size)"}]}`)
	s.policy(t, "validatingadmissionpolicybindings", "size", `{"policyName":"size","validationActions":["Deny"],"paramRef":{"name":"two","parameterNotFoundAction":"Deny"},
		"matchResources":{"namespaceSelector":{"matchLabels":{"limit":"2"}}}}`)
	s.policy(t, "validatingadmissionpolicies", "warn", `{`+onConfigMaps+`,"validations":[{"expression":"object.metadata.name.startsWith('ok')"}]}`)
	s.policy(t, "validatingadmissionpolicybindings", "warn", `{"policyName":"warn","validationActions":["Warn","Audit"]}`)
	time.Sleep(50 * time.Millisecond)

	code, h, b := s.Try(t, "POST", "/api/v1/namespaces/judged/configmaps", `{"metadata":{"name":"a"},"data":{"1":"","2":"","3":""}}`, nil)
	if want := `configmaps \"a\" is forbidden: ValidatingAdmissionPolicy 'size' with binding 'size' denied request: at most 2 in judged`; code != http.StatusForbidden || !strings.Contains(string(b), want) {
		t.Errorf("got %d %s", code, b)
	}
	if w := strings.Join(h.Values("Warning"), ""); !strings.Contains(w, "Validation failed for ValidatingAdmissionPolicy 'warn' with binding 'warn': failed expression: object.metadata.name.startsWith('ok')") {
		t.Errorf("the warning is %q", w)
	}
	s.Must(t, "POST", "/api/v1/namespaces/judged/configmaps", `{"metadata":{"name":"free"},"data":{"1":"","2":"","3":""}}`)
	s.Must(t, "POST", "/api/v1/namespaces/default/configmaps", `{"metadata":{"name":"a"},"data":{"1":"","2":"","3":""}}`)
	s.Must(t, "POST", "/api/v1/namespaces/judged/configmaps", `{"metadata":{"name":"a"},"data":{"1":"","2":""}}`)
	s.Must(t, "DELETE", "/apis/limits.example.com/v1/crons/two", "")
	time.Sleep(50 * time.Millisecond)
	code, _, b = s.Try(t, "PATCH", "/api/v1/namespaces/judged/configmaps/a", `{"data":{"1":null}}`, map[string]string{"Content-Type": "application/merge-patch+json"})
	if code != http.StatusUnprocessableEntity || !strings.Contains(string(b), "no params found for policy binding with `Deny` parameterNotFoundAction") {
		t.Errorf("without its parameter: %d %s", code, b)
	}
}

func TestMutatingAdmissionPolicy(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.policy(t, "mutatingadmissionpolicies", "note", `{"reinvocationPolicy":"Never","matchConstraints":{"resourceRules":[{"apiGroups":["apps"],"apiVersions":["v1"],"operations":["CREATE"],"resources":["deployments"]}]},
		"mutations":[{"patchType":"ApplyConfiguration","applyConfiguration":{"expression":"Object{metadata: Object.metadata{annotations: {'noted': 'yes'}}, spec: Object.spec{replicas: 3}}"}},
			{"patchType":"JSONPatch","jsonPatch":{"expression":"[JSONPatch{op: 'add', path: '/metadata/labels', value: {'has': object.metadata.annotations['noted']}}]"}}]}`)
	s.policy(t, "mutatingadmissionpolicybindings", "note", `{"policyName":"note"}`)
	define(t, s.dynamic(t), "mutated.example.com", "", `[{"name":"v1","served":true,"storage":true,"schema":{"openAPIV3Schema":{"type":"object","properties":{"n":{"type":"integer"},"m":{"type":"integer"}}}}}]`)
	s.policy(t, "mutatingadmissionpolicies", "crons", `{"reinvocationPolicy":"IfNeeded","matchConstraints":{"resourceRules":[{"apiGroups":["*"],"apiVersions":["*"],"operations":["CREATE"],"resources":["crons"]}]},
		"mutations":[{"patchType":"ApplyConfiguration","applyConfiguration":{"expression":"Object{m: object.n + 1}"}}]}`)
	s.policy(t, "mutatingadmissionpolicybindings", "crons", `{"policyName":"crons"}`)
	time.Sleep(50 * time.Millisecond)
	var d struct {
		Metadata struct{ Annotations, Labels map[string]string }
		Spec     struct{ Replicas int }
	}
	b := s.Must(t, "POST", "/apis/apps/v1/namespaces/default/deployments", `{"metadata":{"name":"a"},"spec":{"selector":{"matchLabels":{"a":"b"}},"template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"i"}]}}}}`)
	if err := json.Unmarshal(b, &d); err != nil {
		t.Fatal(err)
	}
	if d.Metadata.Annotations["noted"] != "yes" || d.Metadata.Labels["has"] != "yes" || d.Spec.Replicas != 3 {
		t.Errorf("the policy made %+v", d)
	}
	if b := string(s.Must(t, "POST", "/apis/mutated.example.com/v1/crons", `{"apiVersion":"mutated.example.com/v1","kind":"Cron","metadata":{"name":"a"},"n":1}`)); !strings.Contains(b, `"m":2`) {
		t.Errorf("the policy made %s", b)
	}
	code, _, b := s.Try(t, "POST", "/apis/mutated.example.com/v1/crons", `{"apiVersion":"mutated.example.com/v1","kind":"Cron","metadata":{"name":"b"}}`, nil)
	if code != http.StatusUnprocessableEntity || !strings.Contains(string(b), "policy 'crons' with binding 'crons' denied request") {
		t.Errorf("a mutation that fails: %d %s", code, b)
	}
	code, _, b = s.Try(t, "POST", configurations+"mutatingadmissionpolicies", `{"metadata":{"name":"bad"},"spec":{"reinvocationPolicy":"Never",`+onConfigMaps+`,"mutations":[{"patchType":"JSONPatch","jsonPatch":{"expression":"1"}}]}}`, nil)
	if code != http.StatusUnprocessableEntity || !strings.Contains(string(b), "must evaluate to") {
		t.Errorf("a mutation of the wrong type: %d %s", code, b)
	}
}
