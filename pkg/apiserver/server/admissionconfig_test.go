package server

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
)

// TestAdmissionConfiguration starts a server with a file that configures plugins, inline and in files beside it.
func TestAdmissionConfiguration(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, text string) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	kubeconfig := write("kc", `{"apiVersion":"v1","kind":"Config","users":[{"name":"*","user":{"token":"hook-token"}}]}`)
	write("events.yaml", "apiVersion: eventratelimit.admission.k8s.io/v1alpha1\nkind: Configuration\nlimits: [{type: Namespace, qps: 1, burst: 1}]\n")
	file := write("admission.yaml", `
apiVersion: apiserver.config.k8s.io/v1
kind: AdmissionConfiguration
plugins:
- name: EventRateLimit
  path: events.yaml
- name: PodSecurity
  configuration:
    apiVersion: pod-security.admission.config.k8s.io/v1
    kind: PodSecurityConfiguration
    defaults: {enforce: baseline, enforce-version: latest}
    exemptions: {namespaces: [kube-system]}
- name: ResourceQuota
  configuration:
    apiVersion: apiserver.config.k8s.io/v1
    kind: ResourceQuotaConfiguration
    limitedResources: [{resource: services, matchContains: [services.loadbalancers]}]
- name: ValidatingAdmissionWebhook
  configuration:
    apiVersion: apiserver.config.k8s.io/v1
    kind: WebhookAdmissionConfiguration
    kubeConfigFile: `+kubeconfig+"\n")
	s := start(t, func(c *Config) { c.AdmissionFile, c.EnableAdmission = file, []string{"EventRateLimit"} })
	for _, ns := range []string{"default", "kube-system"} {
		s.Must(t, "POST", "/api/v1/namespaces/"+ns+"/serviceaccounts", `{"metadata":{"name":"default"}}`)
	}
	refused := func(path, body, want string) {
		t.Helper()
		if code, _, b := s.Try(t, "POST", path, body, nil); code < 400 || !strings.Contains(string(b), want) {
			t.Errorf("%s: %d %s, want %q", path, code, b, want)
		}
	}
	const host = `{"metadata":{"name":"p"},"spec":{"hostNetwork":true,"containers":[{"name":"c","image":"i"}]}}`
	refused("/api/v1/namespaces/default/pods", host, `violates PodSecurity \"baseline:latest\"`)
	s.Must(t, "POST", "/api/v1/namespaces/kube-system/pods", host)
	const balancer = `{"metadata":{"name":"s"},"spec":{"type":"LoadBalancer","ports":[{"port":80}]}}`
	refused("/api/v1/namespaces/default/services", balancer, "insufficient quota to consume: services.loadbalancers")
	event := func(name string) string {
		return `{"metadata":{"name":"` + name + `"},"involvedObject":{"kind":"Pod","name":"p","namespace":"default"},"reason":"R","message":"m"}`
	}
	s.Must(t, "POST", "/api/v1/namespaces/default/events", event("a"))
	refused("/api/v1/namespaces/default/events", event("b"), "limit reached on type Namespace for key default")

	logins := make(chan string, 10)
	hook := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		logins <- r.Header.Get("Authorization")
		review := &admissionv1.AdmissionReview{}
		_ = json.NewDecoder(r.Body).Decode(review)
		review.Response = &admissionv1.AdmissionResponse{Allowed: true, UID: review.Request.UID}
		_ = json.NewEncoder(w).Encode(review)
	}))
	t.Cleanup(hook.Close)
	s.configure(t, "validatingwebhookconfigurations", "who", (&hooks{Server: hook}).hook("who.example.com", "/", `"CREATE"`, `"configmaps"`, ""))
	time.Sleep(100 * time.Millisecond)
	s.Must(t, "POST", "/api/v1/namespaces/default/configmaps", `{"metadata":{"name":"a"}}`)
	if got := <-logins; got != "Bearer hook-token" {
		t.Errorf("the webhook was asked with %q", got)
	}
}
