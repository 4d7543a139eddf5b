package lifecycle

import (
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/tools/record"
)

// target is a pod's server, by HTTP and by HTTPS: what it was asked last stands in the answer.
type target struct {
	http, https *httptest.Server
	hits        chan string
}

func newTarget(t *testing.T) *target {
	t.Helper()
	g := &target{hits: make(chan string, 100)}
	h := http.NewServeMux()
	h.HandleFunc("/ok", func(w http.ResponseWriter, r *http.Request) {
		g.hits <- fmt.Sprintf("%s host=%s agent=%s accept=%q x=%q auth=%q", r.Proto, r.Host, r.UserAgent(), r.Header["Accept"], r.Header["X-A"], r.Header.Get("Authorization"))
	})
	h.HandleFunc("/slow", func(http.ResponseWriter, *http.Request) { time.Sleep(1500 * time.Millisecond) })
	h.HandleFunc("/here", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/ok", http.StatusFound) })
	h.HandleFunc("/bad-here", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/none", http.StatusFound) })
	h.HandleFunc("/round", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/round", http.StatusFound) })
	h.HandleFunc("/away", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://0.0.0.0/", http.StatusFound)
	})
	h.HandleFunc("/long", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, strings.Repeat("x", 1<<20)) })
	h.HandleFunc("/sick", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "sick", http.StatusInternalServerError) })
	g.http, g.https = httptest.NewServer(h), httptest.NewTLSServer(h)
	g.https.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	t.Cleanup(g.http.Close)
	t.Cleanup(g.https.Close)
	return g
}

func port(s *httptest.Server) int { return s.Listener.Addr().(*net.TCPAddr).Port }

func hostWorker(events record.EventRecorder) (*worker, *v1.Pod) {
	pod := &v1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "u"}, Spec: v1.PodSpec{HostNetwork: true, Containers: []v1.Container{{Name: "c"}}}}
	m := New(Config{HostIPs: []string{"127.0.0.1"}, Log: slog.New(slog.DiscardHandler), Recorder: events})
	return newWorker(m, pod, true), pod
}

func TestAsk(t *testing.T) {
	g := newTarget(t)
	w, pod := hostWorker(nil)
	c := &pod.Spec.Containers[0]
	c.Ports = []v1.ContainerPort{{Name: "web", ContainerPort: int32(port(g.http))}}
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := closed.Addr().(*net.TCPAddr).Port
	_ = closed.Close() // so that nobody listens
	get := func(path string, change ...func(*v1.HTTPGetAction)) v1.ProbeHandler {
		a := &v1.HTTPGetAction{Path: path, Port: intstr.FromString("web")}
		for _, f := range change {
			f(a)
		}
		return v1.ProbeHandler{HTTPGet: a}
	}
	header := func(pairs ...string) func(*v1.HTTPGetAction) {
		return func(a *v1.HTTPGetAction) {
			for i := 0; i < len(pairs); i += 2 {
				a.HTTPHeaders = append(a.HTTPHeaders, v1.HTTPHeader{Name: pairs[i], Value: pairs[i+1]})
			}
		}
	}
	secure := func(a *v1.HTTPGetAction) {
		a.Scheme, a.Port = v1.URISchemeHTTPS, intstr.FromInt32(int32(port(g.https)))
	}
	at := net.JoinHostPort("127.0.0.1", fmt.Sprint(port(g.http)))
	for _, x := range []struct {
		name           string
		probe          v1.ProbeHandler
		ok             bool
		text, hit, err string
	}{
		{"plain", get("/ok"), true, "", `HTTP/1.1 host=` + at + ` agent=kube-probe/1.37 accept=["*/*"] x=[] auth=""`, ""},
		{"no slash", get("ok"), true, "", "agent=kube-probe/1.37", ""},
		{"headers", get("/ok", header("Host", "name.example", "X-A", "1", "x-a", "2", "User-Agent", "me", "Accept", "text/plain")), true, "",
			`host=name.example agent=me accept=["text/plain"] x=["1" "2"]`, ""},
		{"certificate of nobody", get("/ok", secure), true, "", "agent=kube-probe/1.37", ""},
		{"redirect", get("/here"), true, "", "agent=kube-probe/1.37", ""},
		{"redirect to nothing", get("/bad-here"), false, "HTTP probe failed with statuscode: 404", "", ""},
		{"redirect elsewhere", get("/away"), true, "Probe terminated redirects, Response body: ", "", ""},
		{"redirects without end", get("/round"), false, "stopped after 10 redirects", "", ""},
		{"long", get("/long"), true, "", "", ""},
		{"error", get("/sick"), false, "HTTP probe failed with statuscode: 500", "", ""},
		{"too slow", get("/slow"), false, "context deadline exceeded", "", ""},
		{"host", get("/ok", func(a *v1.HTTPGetAction) { a.Host = "localhost" }), true, "", "host=localhost:", ""},
		{"nobody", get("/ok", func(a *v1.HTTPGetAction) { a.Port = intstr.FromInt32(int32(nobody)) }), false, "connection refused", "", ""},
		{"no such port", get("/ok", func(a *v1.HTTPGetAction) { a.Port = intstr.FromString("none") }), false, "", "", `couldn't find port: "none"`},
		{"socket", v1.ProbeHandler{TCPSocket: &v1.TCPSocketAction{Port: intstr.FromString("web")}}, true, "", "", ""},
		{"closed socket", v1.ProbeHandler{TCPSocket: &v1.TCPSocketAction{Port: intstr.FromInt32(int32(nobody))}}, false, "connection refused", "", ""},
	} {
		ok, text, err := w.ask(t.Context(), pod, c, "id", &v1.Probe{ProbeHandler: x.probe, TimeoutSeconds: 1})
		if ok != x.ok || !strings.Contains(text, x.text) || x.text == "" && text != "" || (err == nil) != (x.err == "") || err != nil && !strings.Contains(err.Error(), x.err) {
			t.Errorf("%s: %v %q %v", x.name, ok, text, err)
		}
		hit := ""
		select {
		case hit = <-g.hits:
		default:
		}
		if !strings.Contains(hit, x.hit) || x.hit == "" && hit != "" {
			t.Errorf("%s: the pod was asked %q, want %q", x.name, hit, x.hit)
		}
	}
}

// TestHook: hooks ask as probes do; one that is to speak HTTPS to a server which does not is asked again without what it must not hear.
func TestHook(t *testing.T) {
	g := newTarget(t)
	events := record.NewFakeRecorder(10)
	w, pod := hostWorker(events)
	c := &pod.Spec.Containers[0]
	hook := func(path string, scheme v1.URIScheme, port int) error {
		return w.hook(t.Context(), pod, c, "id", []string{"127.0.0.1"}, &v1.LifecycleHandler{HTTPGet: &v1.HTTPGetAction{Path: path, Scheme: scheme, Port: intstr.FromInt32(int32(port)),
			HTTPHeaders: []v1.HTTPHeader{{Name: "X-A", Value: "1"}, {Name: "Authorization", Value: "secret"}}}})
	}
	for _, x := range []struct {
		scheme    v1.URIScheme
		port      int
		auth, say string
	}{{"", port(g.http), "secret", ""}, {v1.URISchemeHTTPS, port(g.https), "secret", ""}, {v1.URISchemeHTTPS, port(g.http), "", "LifecycleHTTPFallback"}} {
		if err := hook("/ok", x.scheme, x.port); err != nil {
			t.Errorf("%+v: %v", x, err)
			continue
		}
		if got, want := <-g.hits, fmt.Sprintf(`agent=kube-lifecycle/1.37 accept=["*/*"] x=["1"] auth=%q`, x.auth); !strings.Contains(got, want) {
			t.Errorf("%+v: asked %s, want %s", x, got, want)
		}
		select {
		case e := <-events.Events:
			if x.say == "" || !strings.Contains(e, x.say) {
				t.Errorf("%+v: told %s", x, e)
			}
		default:
			if x.say != "" {
				t.Errorf("%+v: nobody was told", x)
			}
		}
	}
	if err := hook("/sick", "", port(g.http)); err == nil {
		t.Error("a hook whose server fails has not failed")
	}
}
