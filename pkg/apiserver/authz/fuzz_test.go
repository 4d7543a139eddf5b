package authz

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

// FuzzConfiguration reads anything as an AuthorizationConfiguration: it is refused and changes nothing, or is an order of
// authorizers in which the cluster's owners still come first.
func FuzzConfiguration(f *testing.F) {
	const head = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthorizationConfiguration\nauthorizers:\n"
	for _, s := range []string{
		"", "a: [", head, head + "- {type: RBAC, name: a}\n- {type: Node, name: b}\n", head + "- {type: AlwaysDeny, name: a}\n- {type: AlwaysAllow, name: a}\n", head + "- {type: x, name: ''}\n",
		configuration("/none", "Deny", "request.user == 'a'", ""), configuration("/none", "x", "request.verb(", ""), head + "- {type: Webhook, name: w}\n", head + "- {type: RBAC, name: a, webhook: {}}\n",
		strings.Replace(configuration("/none", "NoOpinion", "has(request.resourceAttributes)", ""), "KubeConfigFile,", "InClusterConfig,", 1), "kind: AuthorizationConfiguration\n", `{"kind":"AuthorizationConfiguration","apiVersion":"apiserver.config.k8s.io/v1beta1","authorizers":[{"type":"RBAC","name":"a"}]}`,
	} {
		f.Add([]byte(s))
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, data []byte) {
		file := filepath.Join(dir, "authz.yaml")
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := Open(Config{File: file})
		if err != nil {
			if c != nil {
				t.Errorf("%q is refused with %v and makes a chain", data, err)
			}
			return
		}
		d, _, err := c.Authorize(t.Context(), authorizer.AttributesRecord{User: &user.DefaultInfo{Name: "a", Groups: []string{user.SystemPrivilegedGroup}}, Verb: "get", Path: "/x"})
		if err != nil || d != authorizer.DecisionAllow {
			t.Errorf("%q keeps the cluster's owners out: %v %v", data, d, err)
		}
	})
}
