package authz

import (
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

const policies = `# who may what
{"apiVersion": "abac.authorization.kubernetes.io/v1beta1", "kind": "Policy", "spec": {"user": "ann", "namespace": "*", "resource": "*", "apiGroup": "*"}}

{"apiVersion": "abac.authorization.kubernetes.io/v1beta1", "kind": "Policy", "spec": {"user": "bob", "namespace": "a", "resource": "pods", "readonly": true}}
{"apiVersion": "abac.authorization.kubernetes.io/v1beta1", "kind": "Policy", "spec": {"group": "eyes", "nonResourcePath": "/api*", "readonly": true}}
{"apiVersion": "abac.authorization.kubernetes.io/v1beta1", "kind": "Policy", "spec": {"user": "*", "nonResourcePath": "/version"}}
{"apiVersion": "abac.authorization.kubernetes.io/v1beta1", "kind": "Policy", "spec": {"namespace": "*", "resource": "*", "apiGroup": "*", "nonResourcePath": "*"}}
{"user": "old", "namespace": "b"}
{"user": "older"}
`

func TestABAC(t *testing.T) {
	c, err := Open(Config{Modes: []string{"ABAC"}, PolicyFile: put(t, filepath.Join(t.TempDir(), "policies.jsonl"), policies)})
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		who, verb, group, resource, namespace, path string
		want                                        bool
	}{
		{"ann", "delete", "apps", "deployments", "z", "", true}, {"ann", "get", "", "", "", "/metrics", false}, {"ann", "get", "", "", "", "/version", true},
		{"bob", "list", "", "pods", "a", "", true}, {"bob", "create", "", "pods", "a", "", false}, {"bob", "list", "", "pods", "b", "", false}, {"bob", "list", "", "secrets", "a", "", false}, {"bob", "list", "apps", "pods", "a", "", false},
		{"eve", "get", "", "", "", "/apis/apps", true}, {"eve", "post", "", "", "", "/api", false}, {"eve", "get", "", "pods", "a", "", false},
		{"old", "create", "apps", "deployments", "b", "", true}, {"old", "get", "", "pods", "c", "", false}, {"old", "get", "", "", "", "/metrics", false}, {"older", "get", "", "", "", "/metrics", true},
		{"nobody", "get", "", "pods", "a", "", false}, {"nobody", "get", "", "", "", "/version", true},
	} {
		u := &user.DefaultInfo{Name: x.who, Groups: []string{user.AllAuthenticated}}
		if x.who == "eve" {
			u.Groups = append(u.Groups, "eyes")
		}
		d, reason, err := c.Authorize(t.Context(), authorizer.AttributesRecord{User: u, Verb: x.verb, APIGroup: x.group, Resource: x.resource, Namespace: x.namespace, Path: x.path, ResourceRequest: x.path == ""})
		if err != nil || (d == authorizer.DecisionAllow) != x.want || !x.want && reason != "No policy matched." {
			t.Errorf("%+v: %v %q %v", x, d, reason, err)
		}
	}
	if d, _, _ := c.Authorize(t.Context(), authorizer.AttributesRecord{User: &user.DefaultInfo{Name: user.Anonymous, Groups: []string{user.AllUnauthenticated}}, Verb: "get", Path: "/version"}); d == authorizer.DecisionAllow {
		t.Error("* is also who was not authenticated")
	}
	rules, err := c.RulesFor(t.Context(), &user.DefaultInfo{Name: "bob", Groups: []string{user.AllAuthenticated}}, "a")
	if err != nil || len(rules) != 2 || strings.Join(rules[0].Verbs, " ") != "get list watch" || rules[0].Resources[0] != "pods" || rules[1].NonResourceURLs[0] != "/version" {
		t.Errorf("bob's rules are %v %v", rules, err)
	}
}

func TestABACFaults(t *testing.T) {
	for text, want := range map[string]string{
		`{"apiVersion": "v1", "kind": "Policy"}`: "line 1: it is a Policy", "\n{": "line 2: ", `{"user": 1}`: "line 1: ",
	} {
		_, err := Open(Config{Modes: []string{"ABAC"}, PolicyFile: put(t, filepath.Join(t.TempDir(), "policies.jsonl"), text)})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s is answered with %v", text, err)
		}
	}
	for _, c := range []Config{{Modes: []string{"ABAC"}}, {Modes: []string{"RBAC"}, PolicyFile: "x"}} {
		if _, err := Open(c); err == nil || !strings.Contains(err.Error(), "--authorization-policy-file") {
			t.Errorf("%+v is answered with %v", c, err)
		}
	}
}
