package request

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// FuzzParse reads any path: what is found in it stands in it, and nothing panics.
func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"/", "/api", "/api/v1", "/api/v1/", "/api/v1/pods", "/api/v1/namespaces/a", "/api/v1/namespaces/a/status", "/api/v1/namespaces/a/pods/b/proxy/c/d/", "/apis/g/v1/watch/namespaces/a/things/b",
		"/apis/g/v1/namespaces", "/api/v1/watch", "/api/v1//pods", "/api/v1/namespaces//pods", "/apis///", "/api/v1/nodes/n:10250/proxy/%2e%2e/x", "/api/v1/pods?watch=1&fieldSelector=a%3Db",
	} {
		f.Add("GET", s)
	}
	f.Fuzz(func(t *testing.T, method, target string) {
		u, err := url.ParseRequestURI(target)
		if err != nil || u.Path == "" {
			return
		}
		r := &http.Request{Method: method, URL: u}
		i := Parse(r)
		for _, part := range []string{i.Namespace, i.Name, i.Sub, i.GVR.Resource, i.GVR.Group, i.GVR.Version} {
			if strings.Contains(part, "/") || !strings.Contains(u.Path, part) {
				t.Errorf("%q has a part %q", u.Path, part)
			}
		}
		if i.IsResource && i.GVR.Version == "" && strings.HasPrefix(u.Path, "/apis/") && !strings.Contains(u.Path, "//") {
			t.Errorf("%q is of no version: %+v", u.Path, i)
		}
		_, _, _ = i.LongRunning(), i.Mutating(), i.GroupResource()
	})
}

// TestOneWay holds ways to a pod's streams that look otherwise to what they are: never is opening one a mere reading, and the
// core group is no group without a name.
func TestOneWay(t *testing.T) {
	for path, want := range map[string]string{
		"/api/v1/namespaces/n/pods/p/exec": "create", "//api/v1/namespaces/n/pods/p/exec/": "create", "/api/v1/watch/namespaces/n/pods/p/attach": "create",
		"/api/v1/namespaces/n/pods/p/portforward": "create", "/api/v1/namespaces/n/pods/p/log": "get", "/apis/g/v1/namespaces/n/pods/p/exec": "get",
	} {
		if i := Parse(&http.Request{Method: "GET", URL: &url.URL{Path: path}}); i.Verb != want || !i.IsResource {
			t.Errorf("GET %s is %s of a resource %t, not %s", path, i.Verb, i.IsResource, want)
		}
	}
	for _, path := range []string{"/apis//v1/namespaces/n/pods/p/exec", "/apis//v1/secrets", "//apis//v1/pods"} {
		if i := Parse(&http.Request{Method: "GET", URL: &url.URL{Path: path}}); i.IsResource {
			t.Errorf("GET %s is of %v", path, i.GVR)
		}
	}
}

// TestYes holds what a query may say where it says yes or no: other languages' clients write "True", and a bare name is yes.
func TestYes(t *testing.T) {
	for query, want := range map[string]string{
		"": "list", "watch=0": "list", "watch=false": "list", "watch=False": "list", "watch=FALSE&watch=true": "list",
		"watch": "watch", "watch=": "watch", "watch=1": "watch", "watch=true": "watch", "watch=True": "watch", "watch=t": "watch", "watch=yes&limit=x": "watch",
	} {
		for path, want := range map[string]string{"/api/v1/pods": want, "/apis/g.example.com/v1/namespaces/n/things": want, "/api/v1/namespaces/n/pods/p": "get"} {
			if i := Parse(&http.Request{Method: "GET", URL: &url.URL{Path: path, RawQuery: query}}); i.Verb != want {
				t.Errorf("GET %s?%s is %s, not %s", path, query, i.Verb, want)
			}
		}
	}
}
