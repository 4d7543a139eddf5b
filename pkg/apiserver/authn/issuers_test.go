package authn

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	jose "github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	authenticationv1 "k8s.io/api/authentication/v1"
)

// issuer is an OpenID provider on loopback.
type issuer struct {
	*httptest.Server
	t   *testing.T
	key *ecdsa.PrivateKey
}

func newIssuer(t *testing.T) *issuer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	i := &issuer{t: t, key: key}
	i.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if r.URL.Path == "/keys" {
			_ = json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.Public(), KeyID: "k", Algorithm: "ES256", Use: "sig"}}})
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"issuer": i.URL, "jwks_uri": i.URL + "/keys"})
	}))
	t.Cleanup(i.Close)
	return i
}

// ca is the issuer's certificate in PEM.
func (i *issuer) ca() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: i.Certificate().Raw}))
}

// token is one that says claims besides the usual.
func (i *issuer) token(claims map[string]any) string {
	i.t.Helper()
	all := map[string]any{"iss": i.URL, "aud": "us", "sub": "ann", "exp": time.Now().Add(time.Hour).Unix(), "iat": time.Now().Unix()}
	for k, v := range claims {
		all[k] = v
	}
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: i.key, KeyID: "k"}}, nil)
	if err != nil {
		i.t.Fatal(err)
	}
	text, err := jwt.Signed(s).Claims(all).Serialize()
	if err != nil {
		i.t.Fatal(err)
	}
	return text
}

// askBearer asks until the issuer's keys were fetched.
func askBearer(a *Authenticator, token string) string {
	got := ""
	for range 500 {
		got = ask(a, nil, map[string]string{"Authorization": "Bearer " + token})
		if !strings.Contains(got, "not initialized") {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	return got
}

func put(t *testing.T, file, text string) string {
	t.Helper()
	if file == "" {
		file = filepath.Join(t.TempDir(), "file")
	}
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestIssuerByFlags(t *testing.T) {
	i := newIssuer(t)
	a := started(t, Config{OIDC: OIDC{
		IssuerURL: i.URL, ClientID: "us", CAFile: put(t, "", i.ca()), UsernameClaim: "sub", GroupsClaim: "groups", GroupsPrefix: "o:",
		SigningAlgs: []string{"ES256"}, RequiredClaims: map[string]string{"team": "blue"},
	}})
	blue := map[string]any{"team": "blue", "groups": []string{"dev"}}
	if got, want := askBearer(a, i.token(blue)), i.URL+"#ann o:dev,system:authenticated"; got != want {
		t.Errorf("answered %q, want %q", got, want)
	}
	for name, claims := range map[string]map[string]any{
		"another team": {"team": "red"}, "for others": {"team": "blue", "aud": "them"}, "expired": {"team": "blue", "exp": time.Now().Add(-time.Hour).Unix()},
		"another issuer": {"team": "blue", "iss": "https://elsewhere"},
	} {
		if got := askBearer(a, i.token(claims)); !strings.HasPrefix(got, "error: ") {
			t.Errorf("%s: %q", name, got)
		}
	}
	if _, err := New(Config{OIDC: OIDC{IssuerURL: i.URL}}); err == nil || !strings.Contains(err.Error(), "--oidc-client-id") {
		t.Errorf("without a client id: %v", err)
	}
}

func structured(i *issuer, username, anonymous string) string {
	return fmt.Sprintf(`
apiVersion: apiserver.config.k8s.io/v1
kind: AuthenticationConfiguration
jwt:
- issuer: {url: %q, audiences: [us], certificateAuthority: %q}
  claimValidationRules: [{expression: "claims.level > 3", message: "too low"}]
  claimMappings:
    username: {expression: %q}
    groups: {expression: "claims.roles"}
    extra: [{key: example.org/team, valueExpression: claims.team}]
  userValidationRules: [{expression: "!user.username.startsWith('system:')", message: "reserved"}]
%s`, i.URL, i.ca(), username, anonymous)
}

func TestStructuredConfiguration(t *testing.T) {
	i := newIssuer(t)
	file := put(t, "", structured(i, "'x-' + claims.sub", "anonymous: {enabled: true, conditions: [{path: /healthz}]}"))
	a := started(t, Config{File: file, Anonymous: true})
	claims := map[string]any{"level": 5, "roles": []string{"dev", "ops"}, "team": "blue"}
	if got := askBearer(a, i.token(claims)); got != "x-ann dev,ops,system:authenticated" {
		t.Errorf("answered %q", got)
	}
	if got := askBearer(a, i.token(map[string]any{"level": 1, "roles": []string{"dev"}, "team": "blue"})); !strings.HasPrefix(got, "error: ") {
		t.Errorf("a low level: %q", got)
	}
	for path, want := range map[string]string{"/healthz": "system:anonymous", "/api": "nobody", "/healthz/x": "nobody"} {
		resp, ok, err := a.AuthenticateRequest(httptest.NewRequest(http.MethodGet, path, nil))
		got := "nobody"
		if ok && err == nil {
			got = resp.User.GetName()
		}
		if got != want {
			t.Errorf("%s is asked for by %s", path, got)
		}
	}
	put(t, file, structured(i, "'system:' + claims.sub", ""))
	if _, err := a.trusted.read(); err != nil {
		t.Fatal(err)
	}
	a.forget()
	if got := askBearer(a, i.token(claims)); !strings.HasPrefix(got, "error: ") {
		t.Errorf("a reserved name: %q", got)
	}
	put(t, file, structured(i, "claims.", ""))
	if _, err := a.trusted.read(); err == nil {
		t.Error("a wrong expression is taken over")
	}
	both := put(t, "", structured(i, "claims.sub", "anonymous: {enabled: false}"))
	if _, err := New(Config{File: both, AnonymousSet: true}); err == nil || !strings.Contains(err.Error(), "--anonymous-auth") {
		t.Errorf("file and flag: %v", err)
	}
}

func TestTokenWebhook(t *testing.T) {
	asked := 0
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		var review authenticationv1.TokenReview
		_ = json.NewDecoder(r.Body).Decode(&review)
		if review.Spec.Token == "good" {
			review.Status = authenticationv1.TokenReviewStatus{Authenticated: true, User: authenticationv1.UserInfo{Username: "eve", Groups: []string{"dev"}}, Audiences: review.Spec.Audiences}
		}
		_ = json.NewEncoder(w).Encode(review)
	}))
	defer s.Close()
	file := put(t, "", "apiVersion: v1\nkind: Config\nclusters: [{name: a, cluster: {server: \""+s.URL+"\"}}]\nusers: [{name: u}]\ncontexts: [{name: c, context: {cluster: a, user: u}}]\ncurrent-context: c\n")
	a := started(t, Config{Webhook: Webhook{ConfigFile: file, Version: "v1", CacheTTL: time.Minute}, Audiences: []string{"api"}})
	for range 3 {
		if got := askBearer(a, "good"); got != "eve dev,system:authenticated" {
			t.Errorf("answered %q", got)
		}
	}
	if asked != 1 {
		t.Errorf("asked %d times for one token", asked)
	}
	if got := askBearer(a, "bad"); !strings.HasPrefix(got, "error: ") {
		t.Errorf("a bad token: %q", got)
	}
	if _, err := New(Config{Webhook: Webhook{ConfigFile: file, Version: "v7"}}); err == nil {
		t.Error("an unknown version is taken")
	}
}

// TestAudiences holds tokens that do not say for whom they are to this server's own audiences.
func TestAudiences(t *testing.T) {
	a := started(t, Config{StaticTokens: put(t, "", "secret,carl,7\n"), Audiences: []string{"api", "other"}})
	for _, c := range []struct {
		asked []string
		want  string
	}{
		{nil, "true []"}, {[]string{"api"}, "true [api]"}, {[]string{"vault"}, "false []"}, {[]string{"vault", "api"}, "true [api]"},
	} {
		r, ok, err := a.Token(t.Context(), "secret", c.asked)
		got := fmt.Sprint(ok, " []")
		if ok && err == nil {
			got = fmt.Sprint(ok, " ", r.Audiences)
		}
		if got != c.want {
			t.Errorf("%v: %s, want %s", c.asked, got, c.want)
		}
	}
}
