package server

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// hooks is an admission webhook server that answers by path and remembers what it was asked.
type hooks struct {
	*httptest.Server
	mu    sync.Mutex
	asked map[string][]*admissionv1.AdmissionRequest
}

func startHooks(t *testing.T, answer func(path string, r *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse) *hooks {
	h := &hooks{asked: map[string][]*admissionv1.AdmissionRequest{}}
	h.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		review := &admissionv1.AdmissionReview{}
		if err := json.NewDecoder(r.Body).Decode(review); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		h.mu.Lock()
		h.asked[r.URL.Path] = append(h.asked[r.URL.Path], review.Request)
		h.mu.Unlock()
		review.Response = answer(r.URL.Path, review.Request)
		review.Response.UID = review.Request.UID
		review.Request = nil
		_ = json.NewEncoder(w).Encode(review)
	}))
	t.Cleanup(h.Close)
	return h
}

func (h *hooks) times(path string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.asked[path])
}

func patched(ops string) *admissionv1.AdmissionResponse {
	typ := admissionv1.PatchTypeJSONPatch
	return &admissionv1.AdmissionResponse{Allowed: true, Patch: []byte(ops), PatchType: &typ}
}

// hook is one webhook of a configuration, as JSON; more is its other fields.
func (h *hooks) hook(name, path, operations, resources, more string) string {
	return fmt.Sprintf(`{"name":%q,"admissionReviewVersions":["v1"],"sideEffects":"None","clientConfig":{"url":%q,"caBundle":%q},
		"rules":[{"apiGroups":["*"],"apiVersions":["*"],"operations":[%s],"resources":[%s]}]%s}`, name, h.URL+path, caOf(h.Server), operations, resources, more)
}

const configurations = "/apis/admissionregistration.k8s.io/v1/"

func (s *testServer) configure(t *testing.T, kind, name string, webhooks ...string) {
	t.Helper()
	s.Must(t, "POST", configurations+kind, fmt.Sprintf(`{"metadata":{"name":%q},"webhooks":[%s]}`, name, strings.Join(webhooks, ",")))
}

func TestAdmissionWebhooks(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.Must(t, "POST", "/api/v1/namespaces", `{"metadata":{"name":"hooked","labels":{"hooks":"yes"}}}`)
	s.Must(t, "POST", "/api/v1/namespaces", `{"metadata":{"name":"free"}}`)
	h := startHooks(t, func(path string, r *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
		switch path {
		case "/first":
			return patched(`[{"op":"add","path":"/data/first","value":"yes"}]`)
		case "/second":
			if strings.Contains(string(r.Object.Raw), `"first":"yes"`) {
				return patched(`[{"op":"add","path":"/data/second","value":"yes"}]`)
			}
		case "/again":
			if strings.Contains(string(r.Object.Raw), `"second":"yes"`) {
				return patched(`[{"op":"add","path":"/data/again","value":"yes"}]`)
			}
		case "/deny":
			if strings.Contains(string(r.Object.Raw), `"bad"`) {
				return &admissionv1.AdmissionResponse{Result: refused("no bad things")}
			}
			return &admissionv1.AdmissionResponse{Allowed: true, Warnings: []string{"looked at"}}
		case "/never":
			return &admissionv1.AdmissionResponse{Result: refused("never")}
		}
		return &admissionv1.AdmissionResponse{Allowed: true}
	})
	in := `,"namespaceSelector":{"matchLabels":{"hooks":"yes"}}`
	s.configure(t, "mutatingwebhookconfigurations", "mutate",
		h.hook("again.example.com", "/again", `"CREATE"`, `"configmaps"`, in+`,"reinvocationPolicy":"IfNeeded"`),
		h.hook("first.example.com", "/first", `"CREATE"`, `"configmaps"`, in),
		h.hook("second.example.com", "/second", `"CREATE"`, `"configmaps"`, in))
	s.configure(t, "validatingwebhookconfigurations", "validate",
		h.hook("deny.example.com", "/deny", `"CREATE","UPDATE","DELETE"`, `"configmaps"`, in+`,"matchConditions":[{"name":"c","expression":"request.operation == 'DELETE' || !('skip' in object.data)"}]`),
		h.hook("attach.example.com", "/never", `"CONNECT"`, `"pods/attach"`, in))
	time.Sleep(50 * time.Millisecond)

	var cm struct{ Data map[string]string }
	if err := json.Unmarshal(s.Must(t, "POST", "/api/v1/namespaces/hooked/configmaps", `{"metadata":{"name":"a"},"data":{"x":"y"}}`), &cm); err != nil {
		t.Fatal(err)
	}
	if cm.Data["first"] != "yes" || cm.Data["second"] != "yes" || cm.Data["again"] != "yes" {
		t.Errorf("the webhooks made %v", cm.Data)
	}
	if n := h.times("/again"); n != 2 {
		t.Errorf("the webhook to be asked again was asked %d times", n)
	}
	if n := h.times("/first"); n != 1 {
		t.Errorf("a webhook not to be asked again was asked %d times", n)
	}
	if strings.Contains(string(s.Must(t, "POST", "/api/v1/namespaces/free/configmaps", `{"metadata":{"name":"a"},"data":{"x":"y"}}`)), "first") {
		t.Error("a namespace that is not selected has been mutated")
	}
	code, _, b := s.Try(t, "POST", "/api/v1/namespaces/hooked/configmaps", `{"metadata":{"name":"b"},"data":{"bad":"1"}}`, nil)
	if code != http.StatusBadRequest || !strings.Contains(string(b), `admission webhook \"deny.example.com\" denied the request: no bad things`) {
		t.Errorf("a denied object: %d %s", code, b)
	}
	code, hdr, _ := s.Try(t, "PATCH", "/api/v1/namespaces/hooked/configmaps/a", `{"data":{"z":"1"}}`, map[string]string{"Content-Type": "application/merge-patch+json"})
	if code != http.StatusOK || !strings.Contains(strings.Join(hdr.Values("Warning"), ""), "looked at") {
		t.Errorf("an allowed update: %d %v", code, hdr.Values("Warning"))
	}
	before := h.times("/deny")
	s.Must(t, "POST", "/api/v1/namespaces/hooked/configmaps", `{"metadata":{"name":"c"},"data":{"bad":"1","skip":"1"}}`)
	if h.times("/deny") != before {
		t.Error("a webhook was asked though its condition is false")
	}
	s.Must(t, "DELETE", "/api/v1/namespaces/hooked/configmaps/c", "")
	h.mu.Lock()
	last := h.asked["/deny"][len(h.asked["/deny"])-1]
	h.mu.Unlock()
	if last.Operation != admissionv1.Delete || last.Name != "c" || len(last.OldObject.Raw) < 10 || last.Kind.Kind != "ConfigMap" || last.UserInfo.Username != "system:admin" {
		t.Errorf("a deletion was shown as %+v", last)
	}

	t.Run("connect", func(t *testing.T) {
		s.Must(t, "POST", "/api/v1/namespaces/hooked/serviceaccounts", `{"metadata":{"name":"default"}}`)
		s.Must(t, "POST", "/api/v1/namespaces/hooked/pods", `{"metadata":{"name":"p"},"spec":{"containers":[{"name":"c","image":"i"}]}}`)
		code, _, b := s.Try(t, "POST", "/api/v1/namespaces/hooked/pods/p/attach?container=c&stdin=true", "", nil)
		if code != http.StatusBadRequest || !strings.Contains(string(b), "never") {
			t.Errorf("attaching: %d %s", code, b)
		}
		h.mu.Lock()
		r := h.asked["/never"][0]
		h.mu.Unlock()
		if r.Kind.Kind != "PodAttachOptions" || !strings.Contains(string(r.Object.Raw), `"container":"c"`) || !strings.Contains(string(r.Object.Raw), `"stdin":true`) {
			t.Errorf("attaching was shown as %s %s", r.Kind, r.Object.Raw)
		}
	})

	t.Run("failing", func(t *testing.T) {
		s.configure(t, "validatingwebhookconfigurations", "broken",
			`{"name":"closed.example.com","admissionReviewVersions":["v1"],"sideEffects":"None","clientConfig":{"service":{"namespace":"none","name":"none"}},`+
				`"rules":[{"apiGroups":[""],"apiVersions":["v1"],"operations":["CREATE"],"resources":["secrets"]}]`+in+`}`,
			`{"name":"open.example.com","admissionReviewVersions":["v1"],"sideEffects":"None","failurePolicy":"Ignore","clientConfig":{"service":{"namespace":"none","name":"none"}},`+
				`"rules":[{"apiGroups":[""],"apiVersions":["v1"],"operations":["CREATE"],"resources":["services"]}]`+in+`}`)
		time.Sleep(50 * time.Millisecond)
		code, _, b := s.Try(t, "POST", "/api/v1/namespaces/hooked/secrets", `{"metadata":{"name":"a"}}`, nil)
		if code != http.StatusInternalServerError || !strings.Contains(string(b), `failed calling webhook \"closed.example.com\": failed to call webhook: Post \"https://none.none.svc:443?timeout=10s\"`) {
			t.Errorf("a webhook that fails closed: %d %s", code, b)
		}
		s.Must(t, "POST", "/api/v1/namespaces/hooked/services", `{"metadata":{"name":"a"},"spec":{"ports":[{"port":80}]}}`)
	})

	t.Run("configurations are nobody's business", func(t *testing.T) {
		s.configure(t, "validatingwebhookconfigurations", "all", h.hook("all.example.com", "/never", `"*"`, `"*/*"`, ""))
		time.Sleep(50 * time.Millisecond)
		if code, _, _ := s.Try(t, "POST", "/api/v1/namespaces/free/configmaps", `{"metadata":{"name":"x"}}`, nil); code != http.StatusBadRequest {
			t.Errorf("what everything denies was answered with %d", code)
		}
		s.Must(t, "DELETE", configurations+"validatingwebhookconfigurations/all", "")
		time.Sleep(50 * time.Millisecond)
		s.Must(t, "POST", "/api/v1/namespaces/free/configmaps", `{"metadata":{"name":"x"}}`)
	})

	t.Run("custom resources are pruned", func(t *testing.T) {
		define(t, s.dynamic(t), "two.example.com", "", `[{"name":"v1","served":true,"storage":true,"schema":{"openAPIV3Schema":{"type":"object","properties":{"data":{"type":"object","properties":{"first":{"type":"string"},"x":{"type":"string"}}}}}}},
			{"name":"v2","served":true,"storage":false,"schema":{"openAPIV3Schema":{"type":"object","properties":{"data":{"type":"object","properties":{"first":{"type":"string"},"x":{"type":"string"}}}}}}}]`)
		hook := strings.Replace(h.hook("cr.example.com", "/first", `"CREATE"`, `"crons"`, ""), `"apiVersions":["*"]`, `"apiVersions":["v2"]`, 1)
		other := h.hook("other.example.com", "/second", `"CREATE"`, `"crons"`, "")
		s.configure(t, "mutatingwebhookconfigurations", "crs", hook, other)
		time.Sleep(50 * time.Millisecond)
		b := string(s.Must(t, "POST", "/apis/two.example.com/v1/crons", `{"apiVersion":"two.example.com/v1","kind":"Cron","metadata":{"name":"a"},"data":{"x":"y"}}`))
		if !strings.Contains(b, `"first":"yes"`) || strings.Contains(b, "second") || !strings.Contains(b, `"apiVersion":"two.example.com/v1"`) {
			t.Errorf("the webhooks made %s", b)
		}
		h.mu.Lock()
		r := h.asked["/first"][len(h.asked["/first"])-1]
		h.mu.Unlock()
		if r.Kind.Version != "v2" || r.RequestKind.Version != "v1" || !strings.Contains(string(r.Object.Raw), `"apiVersion":"two.example.com/v2"`) {
			t.Errorf("an equivalent version was shown as %s of %s: %s", r.Kind, r.RequestKind, r.Object.Raw)
		}
	})

	code, _, b = s.Try(t, "POST", configurations+"validatingwebhookconfigurations", fmt.Sprintf(`{"metadata":{"name":"wrong"},"webhooks":[%s]}`,
		h.hook("wrong.example.com", "/x", `"CREATE"`, `"pods"`, `,"matchConditions":[{"name":"c","expression":"... [] bad expression"}]`)), nil)
	if code != http.StatusUnprocessableEntity || !strings.Contains(string(b), "compilation failed") {
		t.Errorf("a condition that does not compile: %d %s", code, b)
	}
}

func refused(message string) *metav1.Status { return &metav1.Status{Message: message} }
