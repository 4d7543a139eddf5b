package server

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
)

// TestImpersonation asks for each right that being somebody else takes, and shows who one is then.
func TestImpersonation(t *testing.T) {
	t.Parallel()
	s := start(t)
	for path, body := range map[string]string{
		"clusterroles":        `{"metadata":{"name":"actor"},"rules":[{"apiGroups":[""],"resources":["users"],"verbs":["impersonate"],"resourceNames":["ann"]},{"apiGroups":[""],"resources":["groups"],"verbs":["impersonate"],"resourceNames":["dev"]},{"apiGroups":["authentication.k8s.io"],"resources":["userextras/example.org/team"],"verbs":["impersonate"],"resourceNames":["blue"]}]}`,
		"clusterrolebindings": `{"metadata":{"name":"actor"},"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"actor"},"subjects":[{"kind":"ServiceAccount","namespace":"default","name":"actor"}]}`,
	} {
		if code, _, b := s.Try(t, "POST", "/apis/rbac.authorization.k8s.io/v1/"+path, body, nil); code != http.StatusCreated {
			t.Fatalf("creating: %d %s", code, b)
		}
	}
	if code, _, b := s.Try(t, "POST", "/api/v1/namespaces/default/serviceaccounts", `{"metadata":{"name":"actor"}}`, nil); code != http.StatusCreated {
		t.Fatalf("creating: %d %s", code, b)
	}
	_, _, b := s.Try(t, "POST", "/api/v1/namespaces/default/serviceaccounts/actor/token", `{"spec":{}}`, nil)
	var token authenticationv1.TokenRequest
	if err := json.Unmarshal(b, &token); err != nil || token.Status.Token == "" {
		t.Fatalf("a token: %v %s", err, b)
	}
	for name, c := range map[string]struct {
		headers map[string]string
		want    string // the user, or a part of the refusal
	}{
		"a user":             {map[string]string{"Impersonate-User": "ann"}, "ann [system:authenticated] map[]"},
		"a group":            {map[string]string{"Impersonate-User": "ann", "Impersonate-Group": "dev"}, "ann [dev system:authenticated] map[]"},
		"an extra":           {map[string]string{"Impersonate-User": "ann", "Impersonate-Extra-Example.org%2fteam": "blue"}, "ann [system:authenticated] map[example.org/team:[blue]]"},
		"another user":       {map[string]string{"Impersonate-User": "eve"}, `cannot impersonate-on:user-info:create resource \"selfsubjectreviews\"`},
		"another group":      {map[string]string{"Impersonate-User": "ann", "Impersonate-Group": "system:masters"}, `cannot impersonate-on:user-info:create`},
		"a uid":              {map[string]string{"Impersonate-User": "ann", "Impersonate-Uid": "7"}, `cannot impersonate-on:user-info:create`},
		"another extra":      {map[string]string{"Impersonate-User": "ann", "Impersonate-Extra-Example.org%2fteam": "red"}, "impersonate-on:user-info:create"},
		"an account":         {map[string]string{"Impersonate-User": "system:serviceaccount:kube-system:x"}, `cannot impersonate-on:serviceaccount:create`},
		"a group of nobody":  {map[string]string{"Impersonate-Group": "dev"}, "without impersonating a user"},
		"an extra of nobody": {map[string]string{"Impersonate-Extra-Scopes": "x"}, "without impersonating a user"},
	} {
		c.headers["Authorization"] = "Bearer " + token.Status.Token
		_, _, b := s.Try(t, "POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", `{"apiVersion":"authentication.k8s.io/v1","kind":"SelfSubjectReview"}`, c.headers)
		var r authenticationv1.SelfSubjectReview
		got := string(b)
		if json.Unmarshal(b, &r) == nil && r.Status.UserInfo.Username != "" {
			got = r.Status.UserInfo.Username + " [" + strings.Join(r.Status.UserInfo.Groups, " ") + "] map["
			for k, v := range r.Status.UserInfo.Extra {
				got += k + ":[" + strings.Join(v, " ") + "]"
			}
			got += "]"
		}
		if got != c.want && !(strings.HasPrefix(got, "{") && strings.Contains(got, c.want)) {
			t.Errorf("%s: %s", name, got)
		}
	}
}

// TestConstrainedImpersonation lets an account be others for one kind of request only.
func TestConstrainedImpersonation(t *testing.T) {
	t.Parallel()
	s := start(t)
	const own = `{"apiGroups":["authentication.k8s.io"],`
	for path, body := range map[string]string{
		"clusterroles": `{"metadata":{"name":"narrow"},"rules":[
			{"apiGroups":["authentication.k8s.io"],"resources":["selfsubjectreviews"],"verbs":["impersonate-on:user-info:create","impersonate-on:serviceaccount:create","impersonate-on:arbitrary-node:create","impersonate-on:associated-node:create"]},
			` + own + `"resources":["users"],"verbs":["impersonate:user-info"],"resourceNames":["ann"]},
			` + own + `"resources":["groups"],"verbs":["impersonate:user-info"]},
			` + own + `"resources":["nodes"],"verbs":["impersonate:arbitrary-node"],"resourceNames":["n1"]},
			` + own + `"resources":["serviceaccounts"],"verbs":["impersonate:serviceaccount"],"resourceNames":["robot"]}]}`,
		"clusterrolebindings": `{"metadata":{"name":"narrow"},"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"narrow"},"subjects":[{"kind":"ServiceAccount","namespace":"default","name":"narrow"}]}`,
	} {
		s.Must(t, "POST", "/apis/rbac.authorization.k8s.io/v1/"+path, body)
	}
	s.Must(t, "POST", "/api/v1/namespaces/default/serviceaccounts", `{"metadata":{"name":"narrow"}}`)
	var token authenticationv1.TokenRequest
	if err := json.Unmarshal(s.Must(t, "POST", "/api/v1/namespaces/default/serviceaccounts/narrow/token", `{"spec":{}}`), &token); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ user, group, method, path, want string }{
		{"ann", "", "POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", `"username":"ann"`},
		{"ann", "dev", "POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", `"groups":["dev","system:authenticated"]`},
		{"ann", "system:masters", "POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", "impersonating the system:masters group is not allowed"},
		{"eve", "", "POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", `users.authentication.k8s.io \"eve\" is forbidden: User \"system:serviceaccount:default:narrow\" cannot impersonate:user-info resource \"users\"`},
		{"ann", "", "GET", "/api/v1/pods", `cannot impersonate-on:user-info:list resource \"pods\"`},
		{"system:node:n1", "", "POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", `"groups":["system:nodes","system:authenticated"]`},
		{"system:node:n2", "", "POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", `nodes.authentication.k8s.io \"n2\" is forbidden`},
		{"system:serviceaccount:default:robot", "", "POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", `"system:serviceaccounts:default"`},
		{"system:serviceaccount:default:other", "", "POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", `serviceaccounts.authentication.k8s.io \"other\" is forbidden`},
	} {
		h := map[string]string{"Authorization": "Bearer " + token.Status.Token, "Impersonate-User": c.user}
		if c.group != "" {
			h["Impersonate-Group"] = c.group
		}
		body := ""
		if c.method == "POST" {
			body = "{}"
		}
		if _, _, b := s.Try(t, c.method, c.path, body, h); !strings.Contains(string(b), c.want) {
			t.Errorf("%s %s as %s %s: %s, want %s", c.method, c.path, c.user, c.group, b, c.want)
		}
	}
}
