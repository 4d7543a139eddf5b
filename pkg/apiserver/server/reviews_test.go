package server

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
)

// TestActionsAreShown has a webhook look at what is asked or done and not kept.
func TestActionsAreShown(t *testing.T) {
	t.Parallel()
	s := start(t)
	h := startHooks(t, func(string, *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
		return &admissionv1.AdmissionResponse{Result: refused("not that")}
	})
	s.Must(t, "POST", "/api/v1/namespaces", `{"metadata":{"name":"shown"}}`)
	s.Must(t, "POST", "/api/v1/namespaces/shown/serviceaccounts", `{"metadata":{"name":"default"}}`)
	s.Must(t, "POST", "/api/v1/namespaces/shown/pods", `{"metadata":{"name":"p"},"spec":{"containers":[{"name":"c","image":"i"}]}}`)
	s.Must(t, "POST", "/apis/apps/v1/namespaces/shown/deployments", `{"metadata":{"name":"d"},"spec":{"selector":{"matchLabels":{"a":"b"}},"template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"i"}]}}}}`)
	s.configure(t, "validatingwebhookconfigurations", "all", h.hook("all.example.com", "/never", `"*"`,
		`"pods/*","bindings","serviceaccounts/token","deployments/scale","tokenreviews","subjectaccessreviews","localsubjectaccessreviews","selfsubjectaccessreviews","selfsubjectrulesreviews","selfsubjectreviews"`, ""))
	time.Sleep(100 * time.Millisecond)
	resource := `"resourceAttributes":{"verb":"get","resource":"pods","namespace":"shown"}`
	types := map[string]string{"POST": "application/json", "PUT": "application/json", "PATCH": "application/merge-patch+json"}
	for _, c := range []struct{ method, path, body, kind, resource, sub, shows string }{
		{"POST", "/api/v1/namespaces/shown/pods/p/eviction", `{"apiVersion":"policy/v1","kind":"Eviction","metadata":{"name":"p"}}`, "Eviction", "pods", "eviction", `"name":"p"`},
		{"POST", "/api/v1/namespaces/shown/pods/p/binding", `{"target":{"kind":"Node","name":"n"}}`, "Binding", "pods", "binding", `"name":"n"`},
		{"POST", "/api/v1/namespaces/shown/bindings", `{"metadata":{"name":"p"},"target":{"kind":"Node","name":"n"}}`, "Binding", "bindings", "", `"name":"n"`},
		{"POST", "/api/v1/namespaces/shown/serviceaccounts/default/token", `{"spec":{"audiences":["x"]}}`, "TokenRequest", "serviceaccounts", "token", `"audiences":["x"]`},
		{"PUT", "/apis/apps/v1/namespaces/shown/deployments/d/scale", `{"metadata":{"name":"d","namespace":"shown"},"spec":{"replicas":4}}`, "Scale", "deployments", "scale", `"replicas":4`},
		{"PATCH", "/apis/apps/v1/namespaces/shown/deployments/d/scale", `{"spec":{"replicas":5}}`, "Scale", "deployments", "scale", `"replicas":5`},
		{"POST", "/apis/authentication.k8s.io/v1/tokenreviews", `{"spec":{"token":"secret"}}`, "TokenReview", "tokenreviews", "", `"token":"secret"`},
		{"POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", `{}`, "SelfSubjectReview", "selfsubjectreviews", "", ""},
		{"POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", `{"spec":{"user":"u",` + resource + `}}`, "SubjectAccessReview", "subjectaccessreviews", "", `"user":"u"`},
		{"POST", "/apis/authorization.k8s.io/v1/namespaces/shown/localsubjectaccessreviews", `{"spec":{"user":"u",` + resource + `}}`, "LocalSubjectAccessReview", "localsubjectaccessreviews", "", `"user":"u"`},
		{"POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", `{"spec":{` + resource + `}}`, "SelfSubjectAccessReview", "selfsubjectaccessreviews", "", `"verb":"get"`},
		{"POST", "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", `{"spec":{"namespace":"shown"}}`, "SelfSubjectRulesReview", "selfsubjectrulesreviews", "", `"namespace":"shown"`},
	} {
		before := h.times("/never")
		code, _, b := s.Try(t, c.method, c.path, c.body, map[string]string{"Content-Type": types[c.method]})
		if code != http.StatusBadRequest || !strings.Contains(string(b), "denied the request: not that") {
			t.Errorf("%s %s: %d %s", c.method, c.path, code, b)
			continue
		}
		h.mu.Lock()
		r := h.asked["/never"][before]
		h.mu.Unlock()
		if r.Kind.Kind != c.kind || r.Resource.Resource != c.resource || r.SubResource != c.sub || !strings.Contains(string(r.Object.Raw), c.shows) {
			t.Errorf("%s was shown as %s of %s/%s: %s", c.path, r.Kind.Kind, r.Resource.Resource, r.SubResource, r.Object.Raw)
		}
	}
}

// TestReviewForms asks for reviews in forms they have and have not.
func TestReviewForms(t *testing.T) {
	t.Parallel()
	s := start(t)
	const path, body = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", `{"spec":{"resourceAttributes":{"verb":"get","resource":"pods"}}}`
	code, _, b := s.Try(t, "POST", path, body, map[string]string{"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"})
	if code != http.StatusNotAcceptable || !strings.Contains(string(b), `"reason":"NotAcceptable"`) {
		t.Errorf("a table of a review: %d %s", code, b)
	}
	var got struct {
		Metadata struct {
			ManagedFields []struct {
				Manager  string
				FieldsV1 json.RawMessage
			}
		}
	}
	if err := json.Unmarshal(s.Must(t, "POST", path+"?fieldManager=me", body), &got); err != nil {
		t.Fatal(err)
	}
	if m := got.Metadata.ManagedFields; len(m) != 1 || m[0].Manager != "me" || string(m[0].FieldsV1) != `{"f:spec":{"f:resourceAttributes":{".":{},"f:resource":{},"f:verb":{}}}}` {
		t.Errorf("the fields of a review are managed as %+v", m)
	}
	s.Must(t, "POST", "/api/v1/namespaces/default/serviceaccounts", `{"metadata":{"name":"default"}}`)
	s.Must(t, "POST", "/api/v1/namespaces/default/pods", `{"metadata":{"name":"p"},"spec":{"containers":[{"name":"c","image":"i"}]}}`)
	b = s.Must(t, "POST", "/api/v1/namespaces/default/bindings", `{"metadata":{"name":"p"},"target":{"kind":"Node","name":"n"}}`)
	if !strings.Contains(string(b), `"status":"Success"`) {
		t.Errorf("a binding was answered with %s", b)
	}
}

// TestDeprecation asks for what goes out of use, and for what was asked wrongly.
func TestDeprecation(t *testing.T) {
	t.Parallel()
	s := start(t)
	const want = `299 - "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"`
	for _, path := range []string{"/api/v1/endpoints", "/api/v1/namespaces/default/endpoints/none", "/api/v1/endpoints?watch=1&timeoutSeconds=1"} {
		if _, h, _ := s.Try(t, "GET", path, "", nil); h.Get("Warning") != want {
			t.Errorf("%s is warned of with %v", path, h.Values("Warning"))
		}
	}
	if _, h, _ := s.Try(t, "GET", "/api/v1/componentstatuses", "", nil); h.Get("Warning") != `299 - "v1 ComponentStatus is deprecated in v1.19+"` {
		t.Errorf("component statuses are warned of with %v", h.Values("Warning"))
	}
	if _, h, _ := s.Try(t, "GET", "/api/v1/pods", "", nil); h.Get("Warning") != "" {
		t.Errorf("pods are warned of with %v", h.Values("Warning"))
	}
	if n, found := sum(s.samples(t), "apiserver_requested_deprecated_apis", `resource="endpoints"`, `removed_release=""`, `group=""`); !found || n != 1 {
		t.Errorf("the gauge of deprecated APIs is %v (%v)", n, found)
	}
	code, _, b := s.Try(t, "GET", "/api/v1/pods?watch=1&resourceVersion=abc", "", nil)
	if code != http.StatusInternalServerError || !strings.Contains(string(b), `"message":"resourceVersion: Invalid value: \"abc\": strconv.ParseUint: parsing \"abc\": invalid syntax"`) {
		t.Errorf("a watch from nowhere: %d %s", code, b)
	}
}
