package audit

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"github.com/spf13/pflag"
)

// room is one whose policy is the rules given.
func room(t *testing.T, rules string, change func(c *Config)) *Room {
	t.Helper()
	c := Config{PolicyFile: write(t, "policy.yaml", "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n"+rules)}
	c.AddFlags(pflag.NewFlagSet("test", pflag.ContinueOnError))
	c.PolicyFile = write(t, "policy.yaml", "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n"+rules)
	change(&c)
	r, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func write(t *testing.T, name, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

var pods = authorizer.AttributesRecord{User: &user.DefaultInfo{Name: "ann"}, Verb: "create", Resource: "pods", APIVersion: "v1", Namespace: "default", ResourceRequest: true}

// serve sends one request through a trail.
func serve(r *Room, a authorizer.AttributesRecord, body, media string, answer func(w http.ResponseWriter)) {
	req := httptest.NewRequest(http.MethodPost, "/api/v1/namespaces/default/pods", strings.NewReader(body))
	req.Header.Set("Content-Type", media)
	tr := r.Begin(req, "id", time.Now(), a, a.Verb == "watch")
	if tr == nil {
		return
	}
	w := tr.Wrap(httptest.NewRecorder())
	returned := false
	defer func() {
		_ = recover() // as the server's own net
	}()
	defer func() { tr.End(w, !returned) }()
	_ = tr.Received()
	_, _ = io.ReadAll(req.Body)
	answer(w)
	returned = true
}

func eventsOf(t *testing.T, file string) []auditv1.Event {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var out []auditv1.Event
	for _, line := range strings.Split(strings.TrimSpace(string(b)), "\n") {
		var e auditv1.Event
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		out = append(out, e)
	}
	return out
}

func TestStagesAndLevels(t *testing.T) {
	fine := func(w http.ResponseWriter) { _, _ = w.Write([]byte(`{"kind":"Pod","metadata":{"name":"p"}}`)) }
	for name, c := range map[string]struct {
		rules, verb string
		answer      func(w http.ResponseWriter)
		want        string // stages
		bodies      string // of the last
	}{
		"metadata":  {"- level: Metadata", "create", fine, "RequestReceived ResponseComplete", ""},
		"request":   {"- level: Request\n  omitStages: [RequestReceived]", "create", fine, "ResponseComplete", "request"},
		"response":  {"- level: RequestResponse\n  omitStages: [RequestReceived]", "create", fine, "ResponseComplete", "request response"},
		"a watch":   {"- level: RequestResponse", "watch", fine, "RequestReceived ResponseStarted ResponseComplete", "request"},
		"a panic":   {"- level: Metadata", "create", func(http.ResponseWriter) { panic("oh") }, "RequestReceived Panic", ""},
		"first one": {"- level: Metadata\n  verbs: [create]\n- level: RequestResponse", "create", fine, "RequestReceived ResponseComplete", ""},
	} {
		file := filepath.Join(t.TempDir(), "log")
		r := room(t, c.rules, func(x *Config) { x.Log.Path, x.Log.Delivery.Mode = file, "blocking" })
		a := pods
		a.Verb = c.verb
		serve(r, a, `{"kind":"Pod"}`, "application/json", c.answer)
		var stages []string
		var bodies []string
		all := eventsOf(t, file)
		for _, e := range all {
			stages = append(stages, string(e.Stage))
		}
		if all[len(all)-1].RequestObject != nil {
			bodies = append(bodies, "request")
		}
		if all[len(all)-1].ResponseObject != nil {
			bodies = append(bodies, "response")
		}
		if got := strings.Join(stages, " "); got != c.want || strings.Join(bodies, " ") != c.bodies {
			t.Errorf("%s: %s with %v, want %s with %s", name, got, bodies, c.want, c.bodies)
		}
	}
}

func TestProtobufIsShownAsJSON(t *testing.T) {
	file := filepath.Join(t.TempDir(), "log")
	r := room(t, "- level: Request", func(x *Config) { x.Log.Path, x.Log.Delivery.Mode = file, "blocking" })
	var b strings.Builder
	pod := &corev1.Pod{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}, ObjectMeta: metav1.ObjectMeta{Name: "web"}}
	if err := protobufs.Encode(pod, &b); err != nil {
		t.Fatal(err)
	}
	serve(r, pods, b.String(), "application/vnd.kubernetes.protobuf", func(w http.ResponseWriter) { w.WriteHeader(http.StatusCreated) })
	all := eventsOf(t, file)
	if e := all[len(all)-1]; e.RequestObject == nil || !strings.Contains(string(e.RequestObject.Raw), `"name":"web"`) {
		t.Errorf("the event holds %+v", e.RequestObject)
	}
}

// TestDeafWebhook shows that a service which does not answer costs events, and no time.
func TestDeafWebhook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := newSink("webhook", Delivery{Mode: "batch", BufferSize: 3, MaxBatch: 2, MaxWait: time.Second})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		s.deliver = func(ctx context.Context, lines [][]byte) error {
			time.Sleep(time.Minute)
			for _, l := range lines {
				got = append(got, string(l))
			}
			return nil
		}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan bool)
		go func() { s.run(ctx); close(ended) }()
		begun := time.Now()
		for i := range 3 {
			_ = s.put(fmt.Appendf(nil, "%d", i), auditv1.StageResponseComplete)
		}
		synctest.Wait()
		for i := range 20 {
			_ = s.put(fmt.Appendf(nil, "late %d", i), auditv1.StageResponseComplete)
		}
		if took := time.Since(begun); took > 0 {
			t.Errorf("handing over took %v", took)
		}
		time.Sleep(10 * time.Minute)
		stop()
		<-ended
		if text := strings.Join(got, ","); text != "0,1,2,late 0,late 1" {
			t.Errorf("delivered %s", text)
		}
	})
}

func TestWebhookIsTold(t *testing.T) {
	told := make(chan auditv1.EventList, 1)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var l auditv1.EventList
		_ = json.NewDecoder(r.Body).Decode(&l)
		told <- l
	}))
	defer server.Close()
	file := write(t, "kubeconfig", "apiVersion: v1\nkind: Config\nclusters: [{name: a, cluster: {server: \""+server.URL+"\"}}]\nusers: [{name: u}]\ncontexts: [{name: c, context: {cluster: a, user: u}}]\ncurrent-context: c\n")
	r := room(t, "- level: Metadata\n  omitStages: [RequestReceived]", func(x *Config) { x.Webhook.ConfigFile, x.Webhook.Delivery.MaxWait = file, 10*time.Millisecond })
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan bool)
	go func() { _ = r.Run(ctx); close(ended) }()
	serve(r, pods, "{}", "application/json", func(w http.ResponseWriter) { w.WriteHeader(http.StatusForbidden) })
	select {
	case l := <-told:
		if l.Kind != "EventList" || len(l.Items) != 1 || l.Items[0].User.Username != "ann" || l.Items[0].ResponseStatus.Code != 403 {
			t.Errorf("told %+v", l)
		}
	case <-time.After(10 * time.Second):
		t.Error("the service was told nothing")
	}
	stop()
	<-ended
}

func TestTooLargeEventsLoseTheirBodies(t *testing.T) {
	file := filepath.Join(t.TempDir(), "log")
	r := room(t, "- level: Request\n  omitStages: [RequestReceived]", func(x *Config) {
		x.Log.Path, x.Log.Delivery = file, Delivery{Mode: "blocking", Truncate: true, MaxEvent: 2000}
	})
	serve(r, pods, `{"x":"`+strings.Repeat("y", 3000)+`"}`, "application/json", func(w http.ResponseWriter) { w.WriteHeader(200) })
	if e := eventsOf(t, file)[0]; e.RequestObject != nil || e.Annotations["audit.k8s.io/truncated"] != "true" {
		t.Errorf("the event is %+v", e)
	}
}

func TestWrongConfigurations(t *testing.T) {
	good := write(t, "p.yaml", "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Metadata}]\n")
	for _, c := range []Config{
		{Log: LogConfig{Path: "-"}},
		{PolicyFile: write(t, "p.yaml", "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Much}]\n"), Log: LogConfig{Path: "-"}},
		{PolicyFile: good, Log: LogConfig{Path: "-", Delivery: Delivery{Mode: "sometimes"}}},
		{PolicyFile: good, Log: LogConfig{Path: "-", Format: "xml", Delivery: Delivery{Mode: "blocking"}}},
		{PolicyFile: good, Webhook: WebhookConfig{ConfigFile: "/nowhere", Delivery: Delivery{Mode: "blocking"}}},
	} {
		if _, err := New(c); err == nil || !strings.Contains(err.Error(), "--audit-") {
			t.Errorf("%+v: %v", c, err)
		}
	}
}
