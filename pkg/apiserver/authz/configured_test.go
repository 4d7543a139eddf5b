package authz

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

// judge is a webhook that knows ann, and remembers what it was asked.
func judge(t *testing.T) (kubeconfig string, asked *[]authorizationv1.SubjectAccessReviewSpec) {
	t.Helper()
	asked = &[]authorizationv1.SubjectAccessReviewSpec{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var review authorizationv1.SubjectAccessReview
		_ = json.NewDecoder(r.Body).Decode(&review)
		*asked = append(*asked, review.Spec)
		review.Status = authorizationv1.SubjectAccessReviewStatus{Allowed: review.Spec.User == "ann", Denied: review.Spec.User == "eve", Reason: "so says the judge"}
		_ = json.NewEncoder(w).Encode(review)
	}))
	t.Cleanup(s.Close)
	return put(t, filepath.Join(t.TempDir(), "kubeconfig"), "apiVersion: v1\nkind: Config\nclusters: [{name: a, cluster: {server: \""+s.URL+"\"}}]\nusers: [{name: u}]\ncontexts: [{name: c, context: {cluster: a, user: u}}]\ncurrent-context: c\n"), asked
}

func put(t *testing.T, file, text string) string {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// may answers a decision in words.
func may(t *testing.T, c *Chain, name, verb, resource string, more ...func(a *authorizer.AttributesRecord)) string {
	t.Helper()
	a := authorizer.AttributesRecord{User: &user.DefaultInfo{Name: name}, Verb: verb, Resource: resource, APIVersion: "v1", Namespace: "default", ResourceRequest: true}
	for _, f := range more {
		f(&a)
	}
	d, reason, _ := c.Authorize(t.Context(), a)
	return strings.TrimSpace([]string{"deny", "allow", "none"}[d] + " " + reason)
}

func configuration(kubeconfig, failure, condition, rest string) string {
	return fmt.Sprintf(`
apiVersion: apiserver.config.k8s.io/v1
kind: AuthorizationConfiguration
authorizers:
- type: Webhook
  name: judge
  webhook:
    authorizedTTL: 5m
    unauthorizedTTL: 30s
    timeout: 3s
    subjectAccessReviewVersion: v1
    matchConditionSubjectAccessReviewVersion: v1
    failurePolicy: %s
    connectionInfo: {type: KubeConfigFile, kubeConfigFile: %s}
    matchConditions: [{expression: %q}]
%s`, failure, kubeconfig, condition, rest)
}

func TestStructuredAuthorization(t *testing.T) {
	kubeconfig, asked := judge(t)
	file := put(t, filepath.Join(t.TempDir(), "authz.yaml"), configuration(kubeconfig, "Deny", "request.resourceAttributes.resource == 'secrets'", "- {type: AlwaysAllow, name: rest}"))
	c, err := Open(Config{File: file})
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct{ user, resource, want string }{
		{"ann", "secrets", "allow so says the judge"}, {"eve", "secrets", "deny so says the judge"}, {"bob", "secrets", "allow"}, {"eve", "pods", "allow"},
	} {
		if got := may(t, c, x.user, "get", x.resource); got != x.want {
			t.Errorf("%s and %s: %s, want %s", x.user, x.resource, got, x.want)
		}
	}
	if n := len(*asked); n != 3 {
		t.Errorf("the judge was asked %d times", n)
	}
	if may(t, c, "ann", "get", "secrets"); len(*asked) != 3 {
		t.Error("a yes is not kept")
	}
	may(t, c, "ann", "list", "secrets", func(a *authorizer.AttributesRecord) {
		a.FieldSelectorRequirements = fields.OneTermEqualSelector("spec.nodeName", "n1").Requirements()
	})
	if last := (*asked)[len(*asked)-1]; last.ResourceAttributes.FieldSelector == nil || last.ResourceAttributes.FieldSelector.Requirements[0].Key != "spec.nodeName" {
		t.Errorf("the judge is not told of selectors: %+v", last.ResourceAttributes)
	}
	put(t, file, configuration("/nowhere", "Deny", "true", ""))
	if _, err := c.read(); err == nil {
		t.Error("a wrong file is taken over")
	}
	put(t, file, "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthorizationConfiguration\nauthorizers: [{type: AlwaysDeny, name: d}]\n")
	if changed, err := c.read(); !changed || err != nil {
		t.Errorf("a new file: %v, %v", changed, err)
	}
	if got := may(t, c, "ann", "get", "secrets"); got != "none Everything is forbidden." {
		t.Errorf("after a change: %s", got)
	}
}

func TestWebhookThatFails(t *testing.T) {
	dead := put(t, filepath.Join(t.TempDir(), "k"), "apiVersion: v1\nkind: Config\nclusters: [{name: a, cluster: {server: \"http://127.0.0.1:1\"}}]\nusers: [{name: u}]\ncontexts: [{name: c, context: {cluster: a, user: u}}]\ncurrent-context: c\n")
	for failure, want := range map[string]string{"Deny": "deny", "NoOpinion": "allow"} {
		// The condition fails to evaluate, which counts as the webhook's failure without the wait of its repetitions.
		file := put(t, filepath.Join(t.TempDir(), "authz.yaml"), configuration(dead, failure, "request.resourceAttributes.fieldSelector.requirements[5].key == 'x'", "- {type: AlwaysAllow, name: rest}"))
		c, err := Open(Config{File: file})
		if err != nil {
			t.Fatal(err)
		}
		if got := may(t, c, "ann", "get", "secrets"); got != want {
			t.Errorf("%s: %s, want %s", failure, got, want)
		}
	}
}

func TestModes(t *testing.T) {
	kubeconfig, _ := judge(t)
	c, err := Open(Config{Modes: []string{"Webhook", "AlwaysDeny"}, Webhook: Webhook{ConfigFile: kubeconfig, Version: "v1", AuthorizedTTL: time.Minute}})
	if err != nil {
		t.Fatal(err)
	}
	if got := may(t, c, "ann", "get", "pods"); got != "allow so says the judge" {
		t.Error(got)
	}
	if got := may(t, c, "bob", "get", "pods"); got != "none so says the judge\nEverything is forbidden." {
		t.Error(got)
	}
	for _, wrong := range []Config{{Modes: []string{"ABAC"}}, {Modes: []string{"Webhook"}}, {File: "/nowhere"}} {
		if _, err := Open(wrong); err == nil || !strings.Contains(err.Error(), "--authorization-") {
			t.Errorf("%+v: %v", wrong, err)
		}
	}
}
