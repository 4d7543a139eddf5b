package suite

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestOddRequests asks a whole server for what nobody should, above all by the paths that are not the engine's (whose own are
// asked by its FuzzRequest, since this package is too large to be built for that): no answer is the server's fault, and one
// that is a refusal is a Status that says so.
func TestOddRequests(t *testing.T) {
	t.Parallel()
	s := start(t)
	const maps, reviews = "/api/v1/namespaces/default/configmaps", "/apis/authorization.k8s.io/v1/"
	for _, c := range [][4]string{
		{"GET", "/openapi/v3/apis/apps/v1?hash=x", "", ""}, {"GET", "/openapi/v3/apis/apps/v1/../../x", "", ""}, {"GET", "//apis/%2e%2e/v1", "", ""}, {"GET", "/apis//v1", "", ""}, {"GET", "/api/v1//", "", ""}, {"GET", "/%00", "", ""}, {"OPTIONS", "/api/v1", "", ""},
		{"DELETE", "/apis", "", ""}, {"POST", "/openapi/v2", "application/json", "{}"}, {"POST", "/version", "application/json", "{}"}, {"GET", "/healthz/%2e%2e/metrics", "", ""}, {"GET", "/logs/../metrics", "", ""}, {"GET", "/apis/apps/v1/namespaces/%2e%2e/deployments", "", ""},
		{"GET", maps + "?limit=1&continue=eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MSwic3RhcnQiOiJhXHUwMDAwIn0", "", ""}, {"GET", maps + "?labelSelector=a+in+(b,c),!d&fieldSelector=metadata.name!%3Dx", "", ""}, {"GET", maps + "?labelSelector=((&fieldSelector=%00", "", ""},
		{"GET", maps + "?%zz=1", "", ""}, {"GET", maps + "?limit=-1", "", ""}, {"GET", maps + "?limit=1e9&timeoutSeconds=x", "", ""}, {"PUT", "/apis/apps/v1/namespaces/default/deployments/x/scale", "application/json", `{"spec":{"replicas":1}}`},
		{"POST", reviews + "subjectaccessreviews", "application/json", `{"spec":{"user":"a","resourceAttributes":{"labelSelector":{"rawSelector":"a in (b"},"fieldSelector":{"requirements":[{"key":"a","operator":"x","values":["b"]}]}}}}`},
		{"POST", reviews + "selfsubjectrulesreviews", "application/json", `{"spec":null}`}, {"POST", reviews + "localsubjectaccessreviews", "application/json", `{}`}, {"POST", "/apis/authentication.k8s.io/v1/tokenreviews", "application/json", `{"spec":{"token":"a.b.c"}}`},
		{"POST", "/api/v1/namespaces/default/serviceaccounts/default/token", "application/json", `{"spec":{"expirationSeconds":-1,"audiences":[""]}}`},
	} {
		code, h, b, err := s.Do(t.Context(), c[0], c[1], c[3], map[string]string{"Content-Type": c[2]})
		if err != nil {
			if !strings.Contains(err.Error(), "invalid URL") { // then it was never sent
				t.Errorf("%s %s: %v", c[0], c[1], err)
			}
			continue
		}
		if code >= 500 || strings.Contains(string(b), "caused apiserver to panic") {
			t.Errorf("%s %s is told to be the server's fault: %d %s", c[0], c[1], code, b)
		}
		if code >= 400 && strings.HasPrefix(h.Get("Content-Type"), "application/json") {
			var st metav1.Status
			if json.Unmarshal(b, &st) != nil || int(st.Code) != code || st.Status != metav1.StatusFailure {
				t.Errorf("%s %s: %d %s", c[0], c[1], code, b)
			}
		}
	}
	if code, _, b := s.Try(t, http.MethodGet, "/readyz", "", nil); code != http.StatusOK {
		t.Errorf("afterwards it is not ready: %d %s", code, b)
	}
}
