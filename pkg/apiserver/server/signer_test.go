package server

import (
	"encoding/json"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"

	"github.com/sextant-k8s/sextant/pkg/apiserver/rig"
)

// TestTokensOfAnExternalSigner has tokens signed at a socket, uses them, and finds their keys published.
func TestTokensOfAnExternalSigner(t *testing.T) {
	t.Parallel()
	signer, socket := rig.NewSigner(t), filepath.Join(t.TempDir(), "s")
	signer.Hint = 1
	signer.Serve(t, socket)
	s := start(t, func(c *Config) { c.ServiceAccountSigningKeyFile, c.ServiceAccountSigningEndpoint = "", socket })
	s.Must(t, "POST", "/api/v1/namespaces/default/serviceaccounts", `{"metadata":{"name":"robot"}}`)
	token := func() string {
		t.Helper()
		var tr authenticationv1.TokenRequest
		if err := json.Unmarshal(s.Must(t, "POST", "/api/v1/namespaces/default/serviceaccounts/robot/token", `{"spec":{}}`), &tr); err != nil {
			t.Fatal(err)
		}
		return tr.Status.Token
	}
	who := func(token string) (int, string) {
		t.Helper()
		code, _, b := s.Try(t, "POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", `{"kind":"SelfSubjectReview","apiVersion":"authentication.k8s.io/v1"}`, map[string]string{"Authorization": "Bearer " + token})
		return code, string(b)
	}
	first := token()
	if code, b := who(first); code != http.StatusCreated || !strings.Contains(b, "system:serviceaccount:default:robot") {
		t.Fatalf("answered %d %s", code, b)
	}
	signer.Add(t, "two")
	second := token()
	if code, b := who(second); code != http.StatusCreated {
		t.Errorf("a token by a new key: %d %s", code, b)
	}
	for _, path := range []string{"/openid/v1/jwks", "/.well-known/openid-configuration"} {
		_, h, b := s.Try(t, "GET", path, "", nil)
		if h.Get("Cache-Control") != "public, max-age=1" || !strings.Contains(string(b), "ES256") {
			t.Errorf("%s: %v %s", path, h, b)
		}
	}
	if _, _, b := s.Try(t, "GET", "/openid/v1/jwks", "", nil); !strings.Contains(string(b), `"kid":"one"`) || !strings.Contains(string(b), `"kid":"two"`) {
		t.Errorf("published are %s", b)
	}
	// A key that is withdrawn is no more, nor are the tokens by it, also those seen a moment ago.
	signer.Change(func() { delete(signer.Keys, "one") })
	within(t, 20*time.Second, "tokens by a key that was withdrawn are refused", func() bool {
		code, _ := who(first)
		return code == http.StatusUnauthorized
	})
	if code, b := who(second); code != http.StatusCreated {
		t.Errorf("the other key's: %d %s", code, b)
	}
	_, _, b := s.Try(t, "GET", "/metrics", "", nil)
	for _, line := range []string{
		`apiserver_externaljwt_fetch_keys_request_total{code="OK"}`, "apiserver_externaljwt_fetch_keys_success_timestamp ", "apiserver_externaljwt_fetch_keys_data_timestamp ",
		`apiserver_externaljwt_sign_request_total{code="OK"}`, `apiserver_externaljwt_request_duration_seconds_count{code="OK",method="/v1.ExternalJWTSigner/Sign"}`,
	} {
		if !strings.Contains(string(b), line) {
			t.Errorf("%s is not told", line)
		}
	}
}
