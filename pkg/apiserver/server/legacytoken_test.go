package server

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	jose "github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/sextant-k8s/sextant/pkg/apiserver/rig"
)

// signer signs claims with a key in PEM.
func signer(t *testing.T, key string) func(claims any) string {
	t.Helper()
	block, _ := pem.Decode([]byte(key))
	k, err := x509.ParseECPrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: k}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return func(claims any) string {
		token, err := jwt.Signed(s).Claims(claims).Serialize()
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
}

// TestLegacyTokens uses tokens that lie in secrets: while all they name is there, and counted for the controllers.
func TestLegacyTokens(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	key := rig.NewKey(t)
	file := filepath.Join(dir, "old.key")
	if err := os.WriteFile(file, []byte(key), 0o600); err != nil {
		t.Fatal(err)
	}
	policy, log := filepath.Join(dir, "policy.yaml"), filepath.Join(dir, "audit.log")
	if err := os.WriteFile(policy, []byte("apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules: [{level: Metadata}]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := start(t, func(c *Config) {
		c.ServiceAccountKeyFiles = []string{file}
		c.Audit.PolicyFile, c.Audit.Log.Path = policy, log
	})
	const accounts, secrets = "/api/v1/namespaces/default/serviceaccounts", "/api/v1/namespaces/default/secrets"
	s.Must(t, "POST", accounts, `{"metadata":{"name":"robot"},"secrets":[{"name":"auto"}]}`)
	var account struct {
		Metadata struct{ UID string }
	}
	if err := json.Unmarshal(s.Must(t, "GET", accounts+"/robot", ""), &account); err != nil {
		t.Fatal(err)
	}
	sign := signer(t, key)
	claims := func(secret string) map[string]any {
		const p = "kubernetes.io/serviceaccount/"
		return map[string]any{"iss": "kubernetes/serviceaccount", "sub": "system:serviceaccount:default:robot", p + "namespace": "default",
			p + "secret.name": secret, p + "service-account.name": "robot", p + "service-account.uid": account.Metadata.UID}
	}
	keep := func(secret, token string) {
		s.Must(t, "POST", secrets, fmt.Sprintf(`{"metadata":{"name":%q,"annotations":{"kubernetes.io/service-account.name":"robot"}},"type":"kubernetes.io/service-account-token","data":{"token":%q}}`,
			secret, base64.StdEncoding.EncodeToString([]byte(token))))
	}
	whoami := func(token, id string) (int, http.Header, string) {
		code, h, b := s.Try(t, "POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", "{}", map[string]string{"Authorization": "Bearer " + token, "Audit-Id": id})
		return code, h, string(b)
	}
	auto, manual := sign(claims("auto")), sign(claims("manual"))
	if code, _, _ := whoami(auto, "early"); code != http.StatusUnauthorized {
		t.Errorf("a token without its secret was answered with %d", code)
	}
	keep("auto", auto)
	keep("manual", manual)
	code, h, b := whoami(manual, "manual")
	if code != http.StatusCreated || !strings.Contains(b, `"system:serviceaccount:default:robot"`) || h.Get("Warning") != "" {
		t.Errorf("a token of a secret that somebody made: %d %s %v", code, b, h["Warning"])
	}
	for range 2 { // the second is remembered, and warned of all the same
		if code, h, _ = whoami(auto, "auto"); code != http.StatusCreated || !strings.Contains(h.Get("Warning"), "auto-generated secret-based tokens") {
			t.Errorf("a token that was made unasked: %d %v", code, h["Warning"])
		}
	}
	today := time.Now().UTC().Format(time.DateOnly)
	if got := string(s.Must(t, "GET", secrets+"/auto", "")); !strings.Contains(got, `"kubernetes.io/legacy-token-last-used":"`+today+`"`) {
		t.Errorf("the use of a token is not noted: %s", got)
	}
	if got := string(s.Must(t, "GET", "/api/v1/namespaces/kube-system/configmaps/kube-apiserver-legacy-service-account-token-tracking", "")); !strings.Contains(got, `"since":"`+today+`"`) {
		t.Errorf("it is not said since when uses are noted: %s", got)
	}
	other := sign(claims("manual"))
	if code, _, _ := whoami(other, "copy"); other != manual && code != http.StatusUnauthorized {
		t.Errorf("a token that is not the secret's was answered with %d", code)
	}
	if code, _, _ := whoami(signer(t, rig.NewKey(t))(claims("manual")), "forged"); code != http.StatusUnauthorized {
		t.Errorf("a forged token was answered with %d", code)
	}
	// One that the cleaner marked counts no more. It was never used, so nobody remembers it.
	marked := sign(claims("marked"))
	s.Must(t, "POST", secrets, fmt.Sprintf(`{"metadata":{"name":"marked","labels":{"kubernetes.io/legacy-token-invalid-since":"2026-01-01"},"annotations":{"kubernetes.io/service-account.name":"robot"}},"type":"kubernetes.io/service-account-token","data":{"token":%q}}`,
		base64.StdEncoding.EncodeToString([]byte(marked))))
	if code, _, _ := whoami(marked, "marked"); code != http.StatusUnauthorized {
		t.Errorf("a token that counts no more was answered with %d", code)
	}
	events := awaitEvents(t, log, "marked")
	for id, want := range map[string][2]string{
		"manual": {"authentication.k8s.io/legacy-token-manual-secret", "manual"},
		"auto":   {"authentication.k8s.io/legacy-token-autogenerated-secret", "auto"},
		"marked": {"authentication.k8s.io/legacy-token-invalidated", "marked/default"},
	} {
		if got := events[id].Annotations[want[0]]; got != want[1] {
			t.Errorf("the audit event %s says %v", id, events[id].Annotations)
		}
	}
	got := s.samples(t)
	for name, want := range map[string]float64{"serviceaccount_legacy_manual_token_uses_total": 1, "serviceaccount_legacy_auto_token_uses_total": 1, "serviceaccount_invalid_legacy_auto_token_uses_total": 1} {
		if got[name] < want {
			t.Errorf("%s is %v", name, got[name])
		}
	}
}
