package server

import (
	"crypto/tls"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
)

// samples are what /metrics tells, by series.
func (s *testServer) samples(t *testing.T) map[string]float64 {
	t.Helper()
	out := map[string]float64{}
	for line := range strings.Lines(string(s.Must(t, "GET", "/metrics", ""))) {
		line = strings.TrimSpace(line)
		at := strings.LastIndexByte(line, ' ')
		if strings.HasPrefix(line, "#") || at < 0 {
			continue
		}
		v, err := strconv.ParseFloat(line[at+1:], 64)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		out[line[:at]] = v
	}
	return out
}

// sum adds the series of a metric that have all of some labels.
func sum(all map[string]float64, name string, labels ...string) (n float64, found bool) {
series:
	for series, v := range all {
		if rest, ok := strings.CutPrefix(series, name); !ok || rest != "" && rest[0] != '{' {
			continue
		}
		for _, l := range labels {
			if !strings.Contains(series, l) {
				continue series
			}
		}
		n, found = n+v, true
	}
	return n, found
}

// TestMetrics has a server do a known number of things and counts what it says it did.
func TestMetrics(t *testing.T) {
	t.Parallel()
	s := start(t)
	h := startHooks(t, func(_ string, r *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
		time.Sleep(20 * time.Millisecond)
		return &admissionv1.AdmissionResponse{Allowed: r.Name != "no"}
	})
	s.configure(t, "validatingwebhookconfigurations", "metered", h.hook("metered.example.com", "/", `"CREATE"`, `"secrets"`, ""),
		`{"name":"open.example.com","admissionReviewVersions":["v1"],"sideEffects":"None","failurePolicy":"Ignore","clientConfig":{"service":{"namespace":"none","name":"none"}},"rules":[{"apiGroups":[""],"apiVersions":["v1"],"operations":["CREATE"],"resources":["secrets"]}]}`)
	time.Sleep(100 * time.Millisecond)
	s.Must(t, "POST", "/api/v1/namespaces/default/secrets", `{"metadata":{"name":"a"}}`)
	s.Must(t, "POST", "/api/v1/namespaces/default/secrets?dryRun=All", `{"metadata":{"name":"b"}}`)
	s.Try(t, "POST", "/api/v1/namespaces/default/secrets", `{"metadata":{"name":"no"}}`, nil)
	s.Must(t, "GET", "/api/v1/namespaces/default/secrets/a", "")
	s.Must(t, "GET", "/api/v1/namespaces/default/secrets", "")
	s.Try(t, "GET", "/api/v1/namespaces/default/madeup/x", "", nil)
	s.Try(t, "GET", "/apis/made.up/v1/things/x", "", nil)
	s.Try(t, "FROBNICATE", "/madeup", "", nil)
	conn, err := tls.Dial("tcp", s.listener.Addr().String(), &tls.Config{ServerName: "nobody"}) // it does not trust the certificate
	if err == nil {
		t.Error("a certificate of nobody was trusted")
		_ = conn.Close()
	}
	time.Sleep(100 * time.Millisecond)
	got := s.samples(t)
	for _, c := range []struct {
		name   string
		labels []string
		want   float64 // at least; -1 = just there
	}{
		{"apiserver_request_total", []string{`verb="POST"`, `resource="secrets"`, `code="201"`, `dry_run=""`, `scope="namespace"`}, 1},
		{"apiserver_request_total", []string{`verb="POST"`, `resource="secrets"`, `dry_run="All"`}, 1},
		{"apiserver_request_duration_seconds_count", []string{`verb="GET"`, `resource="secrets"`, `scope="resource"`}, 1},
		{"apiserver_request_sli_duration_seconds_count", []string{`verb="LIST"`, `resource="secrets"`}, 1},
		{"apiserver_response_sizes_sum", []string{`verb="LIST"`, `resource="secrets"`}, 100},
		{"apiserver_current_inflight_requests", []string{`request_kind="readOnly"`}, 0},
		{"apiserver_admission_controller_admission_duration_seconds_count", []string{`name="NamespaceLifecycle"`, `operation="CREATE"`, `type="validate"`, `rejected="false"`}, 3},
		{"apiserver_admission_step_admission_duration_seconds_count", []string{`type="admit"`, `operation="CREATE"`}, 3},
		{"apiserver_admission_webhook_admission_duration_seconds_sum", []string{`name="metered.example.com"`, `type="validating"`, `operation="CREATE"`}, 0.06},
		{"apiserver_admission_webhook_request_total", []string{`name="metered.example.com"`, `rejected="true"`, `code="400"`}, 1},
		{"apiserver_admission_webhook_rejection_count", []string{`name="metered.example.com"`, `error_type="no_error"`, `rejection_code="400"`}, 1},
		{"apiserver_admission_webhook_fail_open_count", []string{`name="open.example.com"`, `type="validating"`}, 2},
		{"etcd_request_duration_seconds_count", []string{`operation="create"`, `resource="secrets"`}, 1},
		{"etcd_requests_total", []string{`operation="list"`}, 1},
		{"apiserver_storage_objects", []string{`resource="secrets"`}, 1},
		{"apiserver_resource_objects", []string{`resource="clusterroles"`, `group="rbac.authorization.k8s.io"`}, 10},
		{"apiserver_resource_size_estimate_bytes", []string{`resource="secrets"`}, 50},
		{"apiserver_storage_size_bytes", []string{`storage_cluster_id="etcd-0"`}, 1000},
		{"aggregator_unavailable_apiservice", []string{`name="v1.apps"`}, 0},
		{"authentication_attempts", []string{`result="success"`}, 5},
		{"authenticated_user_requests", []string{`username="other"`}, 5},
		{"authorization_attempts_total", []string{`result="allowed"`}, 5},
		{"apiserver_client_certificate_expiration_seconds_count", nil, 0},
		{"apiserver_tls_handshake_errors_total", nil, 1},
		{"apiserver_flowcontrol_request_execution_seconds_count", []string{`flow_schema="exempt"`}, 5},
		{"apiserver_flowcontrol_upper_limit_seats", []string{`priority_level="catch-all"`}, 1},
		{"process_start_time_seconds", nil, 1},
		{"process_cpu_seconds_total", nil, 0},
		{"go_goroutines", nil, 1},
	} {
		n, found := sum(got, c.name, c.labels...)
		if !found || n < c.want {
			t.Errorf("%s%v is %v (%v), want at least %v", c.name, c.labels, n, found, c.want)
		}
	}
	for series := range got {
		if strings.Contains(series, "madeup") || strings.Contains(series, "made.up") || strings.Contains(series, "FROBNICATE") {
			t.Errorf("a client's own word became a label: %s", series)
		}
	}
	whole, _ := sum(got, "apiserver_request_duration_seconds_sum", `verb="POST"`, `resource="secrets"`)
	apart, _ := sum(got, "apiserver_request_sli_duration_seconds_sum", `verb="POST"`, `resource="secrets"`)
	if whole-apart < 0.06 {
		t.Errorf("requests took %v s, and %v s without their webhooks, which took 0.06 s", whole, apart)
	}
	if code, _, _ := s.Try(t, "POST", "/metrics", "", nil); code == http.StatusInternalServerError {
		t.Error("metrics cannot be told")
	}
}
