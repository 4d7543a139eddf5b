package audit

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

// FuzzPolicy reads anything as a policy of audit: it is refused, or judges every request.
func FuzzPolicy(f *testing.F) {
	const head = "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n"
	for _, s := range []string{
		"", "a: [", head, head + "- level: Metadata\n", head + "- level: x\n", head + "- {level: Request, resources: [{group: '*', resources: ['*/status', 'pods/*']}]}\n", head + "- {level: Metadata, nonResourceURLs: ['/a*', '*']}\n",
		head + "- {level: None, users: ['a'], userGroups: ['b'], verbs: ['get'], namespaces: ['n'], omitStages: [RequestReceived, x]}\n", "omitStages: [Panic]\n" + head + "- level: RequestResponse\n  omitManagedFields: true\n",
		head + "- {level: Request, resources: [{resourceNames: ['a']}], nonResourceURLs: ['/x']}\n", "apiVersion: audit.k8s.io/v1beta1\nkind: Policy\nrules: [{level: Metadata}]", `{"kind":"Policy","apiVersion":"audit.k8s.io/v1","rules":[{"level":"Metadata","a":1}]}`,
	} {
		f.Add([]byte(s))
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, data []byte) {
		c := Config{}
		c.AddFlags(pflag.NewFlagSet("test", pflag.ContinueOnError))
		c.PolicyFile, c.Log.Path = filepath.Join(dir, "policy.yaml"), filepath.Join(dir, "log")
		if err := os.WriteFile(c.PolicyFile, data, 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := New(c)
		if err != nil {
			return
		}
		for _, a := range []authorizer.AttributesRecord{pods, {Path: "/a/b", Verb: "get", User: &user.DefaultInfo{}}, {User: &user.DefaultInfo{Name: "a", Groups: []string{"b"}}, Verb: "get", Resource: "pods", Subresource: "status", Namespace: "n", Name: "a", ResourceRequest: true}} {
			req := httptest.NewRequest(http.MethodGet, "/", nil)
			if tr := r.Begin(req, "id", time.Now(), a, false); tr != nil {
				w := tr.Wrap(httptest.NewRecorder())
				w.WriteHeader(http.StatusOK)
			}
		}
	})
}
