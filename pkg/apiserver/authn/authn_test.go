package authn

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

// authority is a CA that makes client certificates.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, file: filepath.Join(t.TempDir(), "ca.crt")}
	a.cert, a.key = a.sign(&x509.Certificate{Subject: pkix.Name{CommonName: "ca"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	if err := os.WriteFile(a.file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	return a
}

// sign completes a certificate; the first an authority signs is its own.
func (a *authority) sign(c *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	c.SerialNumber = big.NewInt(time.Now().UnixNano())
	if c.NotAfter.IsZero() {
		c.NotAfter = time.Now().Add(time.Hour)
	}
	c.NotBefore = c.NotAfter.Add(-2 * time.Hour)
	parent, by := a.cert, a.key
	if parent == nil {
		parent, by = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), by)
	if err != nil {
		a.t.Fatal(err)
	}
	made, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return made, key
}

// client is a client certificate's usual content.
func client(name string, groups ...string) *x509.Certificate {
	return &x509.Certificate{Subject: pkix.Name{CommonName: name, Organization: groups}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
}

// ask sends a request with a certificate, if any, and headers; it answers "name groups", or what went wrong.
func ask(a *Authenticator, cert *x509.Certificate, headers map[string]string) string {
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	for k, v := range headers {
		r.Header.Set(k, v)
	}
	r.TLS = nil
	if cert != nil {
		r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}}
	}
	resp, ok, err := a.AuthenticateRequest(r)
	switch {
	case err != nil:
		return "error: " + err.Error()
	case !ok:
		return "nobody"
	}
	return resp.User.GetName() + " " + strings.Join(resp.User.GetGroups(), ",")
}

func started(t *testing.T, c Config) *Authenticator {
	t.Helper()
	a, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestClientCertificates(t *testing.T) {
	ca, other := newAuthority(t), newAuthority(t)
	signed := func(by *authority, c *x509.Certificate) *x509.Certificate {
		made, _ := by.sign(c)
		return made
	}
	late, server := client("ann"), client("ann")
	late.NotAfter = time.Now().Add(-time.Minute)
	server.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	tokens := filepath.Join(t.TempDir(), "tokens.csv")
	if err := os.WriteFile(tokens, []byte("secret,carl,7,\"dev,ops\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	a := started(t, Config{ClientCAFile: ca.file, StaticTokens: tokens, Anonymous: true})
	bearer := map[string]string{"Authorization": "Bearer secret"}
	for _, c := range []struct {
		name    string
		cert    *x509.Certificate
		headers map[string]string
		want    string // a prefix
	}{
		{"good", signed(ca, client("ann", "dev", "ops")), nil, "ann dev,ops,system:authenticated"},
		{"none", nil, nil, "system:anonymous system:unauthenticated"},
		{"of another CA", signed(other, client("ann", "system:masters")), nil, "error: verifying certificate SN="},
		{"expired", signed(ca, late), nil, "error: verifying certificate SN="},
		{"for servers", signed(ca, server), nil, "error: verifying certificate SN="},
		{"without a name", signed(ca, client("", "system:masters")), nil, "system:anonymous system:unauthenticated"},
		{"and a token", signed(ca, client("ann")), bearer, "ann system:authenticated"},
		{"bad, and a token", signed(other, client("ann")), bearer, "carl dev,ops,system:authenticated"},
		{"a token", nil, bearer, "carl dev,ops,system:authenticated"},
		{"a wrong token", nil, map[string]string{"Authorization": "Bearer guess"}, "error: "},
		{"a WebSocket's token", nil, map[string]string{
			"Upgrade": "websocket", "Sec-WebSocket-Protocol": "base64url.bearer.authorization.k8s.io." + base64.RawURLEncoding.EncodeToString([]byte("secret")) + ", v5.channel.k8s.io",
		}, "carl dev,ops,system:authenticated"},
		{"headers of no proxy", signed(ca, client("ann")), map[string]string{"X-Remote-User": "root"}, "ann system:authenticated"},
	} {
		if got := ask(a, c.cert, c.headers); !strings.HasPrefix(got, c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
	if got := ask(started(t, Config{ClientCAFile: ca.file}), nil, nil); got != "nobody" {
		t.Errorf("without anonymous users: %q", got)
	}
}

func TestFrontProxy(t *testing.T) {
	ca, proxies := newAuthority(t), newAuthority(t)
	a := started(t, Config{
		ClientCAFile: ca.file, ProxyCAFile: proxies.file, ProxyNames: []string{"front"},
		UserHeaders: []string{"X-Remote-User"}, GroupHeaders: []string{"X-Remote-Group"},
	})
	front, _ := proxies.sign(client("front"))
	back, _ := proxies.sign(client("back"))
	user, _ := ca.sign(client("ann"))
	headers := map[string]string{"X-Remote-User": "dora", "X-Remote-Group": "dev"}
	for _, c := range []struct {
		cert *x509.Certificate
		want string
	}{
		{front, "dora dev,system:authenticated"},
		{back, "error: x509: subject with cn=back is not in the allowed list"},
		{user, "ann system:authenticated"},
		{nil, "nobody"},
	} {
		if got := ask(a, c.cert, headers); got != c.want {
			t.Errorf("answered %q, want %q", got, c.want)
		}
	}
}

// safe is an Env with one secret.
type safe struct {
	kind.Env
	secret *corev1.Secret
}

func (s safe) Get(_ context.Context, gr schema.GroupResource, namespace, name string) (kind.Object, error) {
	if gr.Resource == "secrets" && s.secret.Namespace == namespace && s.secret.Name == name {
		return s.secret, nil
	}
	return nil, apierrors.NewNotFound(gr, name)
}

func TestBootstrapTokens(t *testing.T) {
	for name, c := range map[string]struct {
		token  string
		change func(s *corev1.Secret)
		want   string
	}{
		"good": {"", func(*corev1.Secret) {}, "system:bootstrap:abcdef system:bootstrappers,system:authenticated"},
		"more groups": {"", func(s *corev1.Secret) {
			s.Data["auth-extra-groups"] = []byte("system:bootstrappers:nodes,system:masters")
		}, "system:bootstrap:abcdef system:bootstrappers,system:bootstrappers:nodes,system:authenticated"},
		"wrong secret":      {"abcdef.0123456789abcdee", func(*corev1.Secret) {}, "error: "},
		"unknown":           {"abcdee.0123456789abcdef", func(*corev1.Secret) {}, "error: "},
		"not for this":      {"", func(s *corev1.Secret) { delete(s.Data, "usage-bootstrap-authentication") }, "error: "},
		"of another type":   {"", func(s *corev1.Secret) { s.Type = corev1.SecretTypeOpaque }, "error: "},
		"of another id":     {"", func(s *corev1.Secret) { s.Data["token-id"] = []byte("abcdee") }, "error: "},
		"of another's room": {"", func(s *corev1.Secret) { s.Namespace = "default" }, "error: "},
		"going":             {"", func(s *corev1.Secret) { s.DeletionTimestamp = &metav1.Time{Time: time.Now()} }, "error: "},
		"expired": {"", func(s *corev1.Secret) {
			s.Data["expiration"] = []byte(time.Now().Add(-time.Second).Format(time.RFC3339))
		}, "error: "},
		"of no clear time": {"", func(s *corev1.Secret) { s.Data["expiration"] = []byte("tomorrow") }, "error: "},
	} {
		s := bootstrapSecret()
		c.change(s)
		if c.token == "" {
			c.token = "abcdef.0123456789abcdef"
		}
		a := started(t, Config{Env: safe{secret: s}, BootstrapTokens: true})
		if got := ask(a, nil, map[string]string{"Authorization": "Bearer " + c.token}); !strings.HasPrefix(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
		a = started(t, Config{Env: safe{secret: s}})
		if got := ask(a, nil, map[string]string{"Authorization": "Bearer " + c.token}); !strings.HasPrefix(got, "error: ") {
			t.Errorf("%s, where bootstrap tokens are off: %q", name, got)
		}
	}
}

func bootstrapSecret() *corev1.Secret {
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "bootstrap-token-abcdef"}, Type: "bootstrap.kubernetes.io/token", Data: map[string][]byte{
		"token-id": []byte("abcdef"), "token-secret": []byte("0123456789abcdef"), "usage-bootstrap-authentication": []byte("true"),
	}}
}

// A token that was found good is not looked up again for a while, and not for longer.
func TestTokensAreRememberedForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := bootstrapSecret()
		a := started(t, Config{Env: safe{secret: s}, BootstrapTokens: true})
		good := func() bool {
			return strings.HasPrefix(ask(a, nil, map[string]string{"Authorization": "Bearer abcdef.0123456789abcdef"}), "system:bootstrap")
		}
		if !good() {
			t.Fatal("the token is not taken at first")
		}
		s.Name = "gone"
		time.Sleep(remember - time.Second)
		if !good() {
			t.Error("it was forgotten too soon")
		}
		time.Sleep(2 * time.Second)
		if good() {
			t.Error("it is remembered although it is gone")
		}
	})
}
