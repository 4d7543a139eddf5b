package server

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/client-go/discovery"

	"github.com/sextant-k8s/sextant/pkg/apiserver/rig"
)

// TestAggregation puts another server behind this one.
func TestAggregation(t *testing.T) {
	t.Parallel()
	s := start(t)
	var headers http.Header
	more := make(chan string)
	var onlyV2 atomic.Bool
	back := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		switch {
		case r.URL.Path == "/apis/wardle.example.com/v1alpha1":
			fmt.Fprint(w, `{"kind":"APIResourceList","apiVersion":"v1","groupVersion":"wardle.example.com/v1alpha1","resources":[
				{"name":"flunders","singularName":"flunder","namespaced":true,"kind":"Flunder","verbs":["create","get","list","watch"]},{"name":"flunders/status","namespaced":true,"kind":"Flunder","verbs":["get"]}]}`)
		case strings.HasPrefix(r.URL.Path, "/openapi/v3") && onlyV2.Load():
			http.NotFound(w, r)
		case r.URL.Path == "/openapi/v3":
			fmt.Fprint(w, `{"paths":{"apis/wardle.example.com/v1alpha1":{"serverRelativeURL":"/openapi/v3/apis/wardle.example.com/v1alpha1?hash=ABC"}}}`)
		case r.URL.Path == "/openapi/v2":
			fmt.Fprint(w, `{"paths":{"/apis/wardle.example.com/v1alpha1/flunders":{"get":{"produces":["application/json"],"responses":{"200":{"description":"OK","schema":{"$ref":"#/definitions/com.example.Flunder"}}}}},"/other/":{}},"definitions":{"com.example.Flunder":{"type":"object"}}}`)
		case r.URL.Path == "/openapi/v3/apis/wardle.example.com/v1alpha1":
			fmt.Fprint(w, `{"openapi":"3.0.0"}`)
		case r.URL.Query().Get("watch") != "":
			w.WriteHeader(http.StatusOK)
			w.(http.Flusher).Flush()
			for line := range more {
				fmt.Fprintln(w, line)
				w.(http.Flusher).Flush()
			}
		default:
			headers = r.Header
			fmt.Fprintf(w, `{"path":%q,"query":%q,"method":%q}`, r.URL.Path, r.URL.RawQuery, r.Method)
		}
	}))
	defer back.Close()
	u, err := url.Parse(back.URL)
	if err != nil {
		t.Fatal(err)
	}
	status := func() string {
		var a struct {
			Status struct {
				Conditions []struct{ Type, Status, Reason, Message string }
			}
		}
		if err := json.Unmarshal(s.Must(t, "GET", "/apis/apiregistration.k8s.io/v1/apiservices/v1alpha1.wardle.example.com", ""), &a); err != nil {
			t.Fatal(err)
		}
		if len(a.Status.Conditions) == 0 {
			return ""
		}
		return a.Status.Conditions[0].Status + " " + a.Status.Conditions[0].Reason
	}
	const flunders = "/apis/wardle.example.com/v1alpha1/namespaces/default/flunders"
	s.Must(t, "POST", "/apis/apiregistration.k8s.io/v1/apiservices", fmt.Sprintf(`{"metadata":{"name":"v1alpha1.wardle.example.com"},"spec":{"group":"wardle.example.com","version":"v1alpha1",
		"groupPriorityMinimum":2000,"versionPriority":200,"insecureSkipTLSVerify":true,"service":{"namespace":"default","name":"wardle","port":%s}}}`, u.Port()))
	within(t, 5*time.Second, "the service is missed", func() bool { return status() == "False ServiceNotFound" })
	if code, _, b := s.Try(t, "GET", flunders, "", nil); code != http.StatusServiceUnavailable {
		t.Errorf("without its service: %d %s", code, b)
	}
	s.Must(t, "POST", "/api/v1/namespaces/default/services", fmt.Sprintf(`{"metadata":{"name":"wardle"},"spec":{"type":"ExternalName","externalName":"localhost","ports":[{"port":%s}]}}`, u.Port()))
	within(t, 5*time.Second, "the server is available", func() bool { return status() == "True Passed" })

	b := string(s.Must(t, "POST", flunders+"?dryRun=All", `{}`))
	if b != `{"path":"`+flunders+`","query":"dryRun=All","method":"POST"}` {
		t.Errorf("the request arrived as %s", b)
	}
	if headers.Get("X-Remote-User") != "system:admin" || !strings.Contains(strings.Join(headers.Values("X-Remote-Group"), ","), "system:masters") || headers.Get("Authorization") != "" {
		t.Errorf("the user was told as %v", headers)
	}
	if _, _, err := s.Try(t, "GET", flunders, "", map[string]string{"X-Remote-User": "somebody", "X-Remote-Extra-A": "b"}); err == nil || headers.Get("X-Remote-User") != "system:admin" || headers.Get("X-Remote-Extra-A") != "" {
		t.Errorf("a client named itself: %v", headers)
	}
	// Of HTTP/1.1 a client may say which headers end with its connection; who asks is not among them.
	old := &rig.Client{URL: s.URL, HTTP: &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, TLSNextProto: map[string]func(string, *tls.Conn) http.RoundTripper{}}}}
	defer old.HTTP.CloseIdleConnections()
	code, _, _ := old.Try(t, "GET", flunders, "", map[string]string{"Connection": "X-Mine, x-remote-user,X-Remote-Group", "X-Mine": "a"})
	if code != http.StatusOK || headers.Get("X-Remote-User") != "system:admin" || len(headers.Values("X-Remote-Group")) == 0 || headers.Get("X-Mine") != "" {
		t.Errorf("a client took its name off: %d %v", code, headers)
	}

	t.Run("watch", func(t *testing.T) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+flunders+"?watch=1", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+rig.AdminToken)
		resp, err := s.HTTP.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close() //nolint:errcheck // only read
		more <- `{"type":"ADDED"}`
		var e struct{ Type string }
		if err := json.NewDecoder(resp.Body).Decode(&e); err != nil || e.Type != "ADDED" {
			t.Errorf("%v %v", e, err)
		}
		close(more)
	})
	t.Run("discovery", func(t *testing.T) {
		d := discovery.NewDiscoveryClientForConfigOrDie(s.config())
		for name, d := range map[string]discovery.DiscoveryInterface{"aggregated": d, "plain": d.WithLegacy()} {
			groups, lists, err := d.ServerGroupsAndResources()
			if err != nil {
				t.Fatal(err)
			}
			found := ""
			for _, l := range lists {
				if l.GroupVersion == "wardle.example.com/v1alpha1" {
					for _, r := range l.APIResources {
						found += r.Name + " "
					}
				}
			}
			if found != "flunders flunders/status " || len(groups) == 0 {
				t.Errorf("%s discovery tells of %q", name, found)
			}
		}
	})
	t.Run("OpenAPI", func(t *testing.T) {
		if b := string(s.Must(t, "GET", "/openapi/v3", "")); !strings.Contains(b, `/openapi/v3/apis/wardle.example.com/v1alpha1?hash=ABC`) {
			t.Error("the index of v3 does not tell")
		}
		if b := string(s.Must(t, "GET", "/openapi/v3/apis/wardle.example.com/v1alpha1?hash=ABC", "")); b != `{"openapi":"3.0.0"}` {
			t.Errorf("v3 is %s", b)
		}
		if b := string(s.Must(t, "GET", "/openapi/v2", "")); !strings.Contains(b, `"com.example.Flunder":{"type":"object"}`) || !strings.Contains(b, `"/apis/wardle.example.com/v1alpha1/flunders":{"get"`) || strings.Contains(b, `"/other/"`) {
			t.Error("v2 does not tell, or too much")
		}
	})
	t.Run("OpenAPI v2 only", func(t *testing.T) {
		onlyV2.Store(true)
		defer onlyV2.Store(false)
		const service = "/apis/apiregistration.k8s.io/v1/apiservices/v1alpha1.wardle.example.com"
		if code, _, b := s.Try(t, "PATCH", service, `{"spec":{"versionPriority":201}}`, map[string]string{"Content-Type": "application/merge-patch+json"}); code != http.StatusOK {
			t.Fatalf("%d %s", code, b)
		}
		within(t, 10*time.Second, "v3 is made of v2", func() bool {
			_, _, b := s.Try(t, "GET", "/openapi/v3/apis/wardle.example.com/v1alpha1", "", nil)
			return strings.Contains(string(b), `"#/components/schemas/com.example.Flunder"`) && strings.Contains(string(b), `"/apis/wardle.example.com/v1alpha1/flunders"`)
		})
		var index struct {
			Paths map[string]struct{ ServerRelativeURL string }
		}
		within(t, 10*time.Second, "the index of v3 tells of it", func() bool {
			return json.Unmarshal(s.Must(t, "GET", "/openapi/v3", ""), &index) == nil && len(index.Paths["apis/wardle.example.com/v1alpha1"].ServerRelativeURL) > 150
		})
		code, h, b := s.Try(t, "GET", index.Paths["apis/wardle.example.com/v1alpha1"].ServerRelativeURL, "", map[string]string{"Accept": "application/com.github.proto-openapi.spec.v3.v1.0+protobuf"})
		if code != http.StatusOK || !strings.Contains(h.Get("Content-Type"), "protobuf") || !strings.Contains(string(b), "com.example.Flunder") {
			t.Errorf("as protobuf it is %d %v %.200s", code, h, b)
		}
	})
	t.Run("local", func(t *testing.T) {
		define(t, s.dynamic(t), "local.example.com", "", `[{"name":"v1","served":true,"storage":true,"schema":{"openAPIV3Schema":{"type":"object"}}}]`)
		for _, name := range []string{"v1.", "v1.apps", "v2.autoscaling", "v1.local.example.com"} {
			within(t, 5*time.Second, name+" is there", func() bool {
				code, _, b := s.Try(t, "GET", "/apis/apiregistration.k8s.io/v1/apiservices/"+name, "", nil)
				return code == http.StatusOK && strings.Contains(string(b), `"reason":"Local"`)
			})
		}
		s.Must(t, "DELETE", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/crons.local.example.com", "")
		within(t, 5*time.Second, "its APIService is gone", func() bool {
			code, _, _ := s.Try(t, "GET", "/apis/apiregistration.k8s.io/v1/apiservices/v1.local.example.com", "", nil)
			return code == http.StatusNotFound
		})
	})

	back.Close()
	s.Try(t, "GET", flunders, "", nil)
	within(t, 5*time.Second, "it is missed", func() bool { return status() == "False FailedDiscoveryCheck" })
	s.Must(t, "DELETE", "/apis/apiregistration.k8s.io/v1/apiservices/v1alpha1.wardle.example.com", "")
	within(t, 5*time.Second, "the group is gone", func() bool {
		code, _, _ := s.Try(t, "GET", flunders, "", nil)
		return code == http.StatusNotFound && !strings.Contains(string(s.Must(t, "GET", "/apis", "")), "wardle")
	})
}
