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
