package server

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
	corev1 "k8s.io/api/core/v1"
)

// adminToken is the static token of a cluster administrator in tests.
const adminToken = "admin-token"

// testServer is a real server with its own etcd, on a loopback port.
type testServer struct {
	*Server
	url    string
	client *http.Client
}

// container is one that is privileged or not.
func container(privileged *bool) corev1.Container {
	return corev1.Container{Name: "c", Image: "i", SecurityContext: &corev1.SecurityContext{Privileged: privileged}}
}

// start runs a server until the test ends; each change is made to its configuration first.
func start(t *testing.T, changes ...func(*Config)) *testServer {
	t.Helper()
	dir := t.TempDir()
	write := func(name, text string) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	c := &Config{Version: "v0.0.0-test"}
	c.AddFlags(pflag.NewFlagSet("test", pflag.ContinueOnError))
	c.AllowPrivileged = true
	c.BindAddress, c.SecurePort = "127.0.0.1", freePort(t)
	c.DataDir, c.CertDir = filepath.Join(dir, "data"), filepath.Join(dir, "certs")
	c.TokenAuthFile = write("tokens.csv", adminToken+`,system:admin,1,system:masters`+"\n")
	c.ServiceAccountIssuer, c.ServiceAccountSigningKeyFile = []string{"https://kubernetes.default.svc"}, write("sa.key", newKey(t))
	c.AuthorizationMode = []string{"Node", "RBAC"}
	for _, change := range changes {
		change(c)
	}
	s, err := New(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil && !strings.Contains(err.Error(), "Server closed") {
			t.Errorf("the server ended with %v", err)
		}
	})
	ts := &testServer{Server: s, url: "https://" + s.listener.Addr().String(), client: &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true,
	}}}
	t.Cleanup(ts.client.CloseIdleConnections)
	deadline := time.Now().Add(30 * time.Second)
	for {
		if code, _, _ := ts.try(t, "GET", "/readyz", "", nil); code == http.StatusOK {
			return ts
		}
		if time.Now().After(deadline) {
			t.Fatal("the server was not ready after 30 s")
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // nothing was written
	return l.Addr().(*net.TCPAddr).Port
}

func newKey(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}))
}

// try makes one request as the administrator.
func (s *testServer) try(t *testing.T, method, path, body string, headers map[string]string) (int, http.Header, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, s.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+adminToken)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "")
	for k, v := range headers {
		req.Header.Set(k, v)
	}
	resp, err := s.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close() //nolint:errcheck // only read
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, b
}

// must is try for requests that have to succeed.
func (s *testServer) must(t *testing.T, method, path, body string) []byte {
	t.Helper()
	code, _, b := s.try(t, method, path, body, nil)
	if code >= 300 {
		t.Fatalf("%s %s: %d %s", method, path, code, b)
	}
	return b
}

// recorded opens a compressed file of testdata.
func recorded(t *testing.T, name string) []byte {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	z, err := gzip.NewReader(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestLastAnswer asks for large answers on connections that end with them: they arrive whole.
func TestLastAnswer(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.client.Transport = &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true, TLSNextProto: map[string]func(string, *tls.Conn) http.RoundTripper{}}
	long := strings.Repeat("a", 3000)
	for range 100 {
		code, _, b := s.try(t, "POST", "/api/v1/namespaces/default/configmaps", `{"metadata":{"name":"`+long+`"}}`, nil)
		if code != http.StatusUnprocessableEntity || strings.Count(string(b), long) < 3 {
			t.Fatalf("%d with %d bytes", code, len(b))
		}
	}
}
