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
		if code, _, b := s.try(t, "POST", "/apis/rbac.authorization.k8s.io/v1/"+path, body, nil); code != http.StatusCreated {
			t.Fatalf("creating: %d %s", code, b)
		}
	}
	if code, _, b := s.try(t, "POST", "/api/v1/namespaces/default/serviceaccounts", `{"metadata":{"name":"actor"}}`, nil); code != http.StatusCreated {
		t.Fatalf("creating: %d %s", code, b)
	}
	_, _, b := s.try(t, "POST", "/api/v1/namespaces/default/serviceaccounts/actor/token", `{"spec":{}}`, nil)
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
		"another user":       {map[string]string{"Impersonate-User": "eve"}, `cannot impersonate resource \"users\"`},
		"another group":      {map[string]string{"Impersonate-User": "ann", "Impersonate-Group": "system:masters"}, `cannot impersonate resource \"groups\"`},
		"a uid":              {map[string]string{"Impersonate-User": "ann", "Impersonate-Uid": "7"}, `cannot impersonate resource \"uids\"`},
		"another extra":      {map[string]string{"Impersonate-User": "ann", "Impersonate-Extra-Example.org%2fteam": "red"}, "userextras/example.org/team"},
		"an account":         {map[string]string{"Impersonate-User": "system:serviceaccount:kube-system:x"}, `cannot impersonate resource \"serviceaccounts\"`},
		"a group of nobody":  {map[string]string{"Impersonate-Group": "dev"}, "without impersonating a user"},
		"an extra of nobody": {map[string]string{"Impersonate-Extra-Scopes": "x"}, "without impersonating a user"},
	} {
		c.headers["Authorization"] = "Bearer " + token.Status.Token
		_, _, b := s.try(t, "POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", `{"apiVersion":"authentication.k8s.io/v1","kind":"SelfSubjectReview"}`, c.headers)
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
