package suite

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"github.com/sextant-k8s/sextant/pkg/apiserver/server"
)

// adminToken is the static token of a cluster administrator in tests.
const adminToken = "admin-token"

// client makes requests as the administrator of one server.
type client struct {
	url  string
	http *http.Client
}

func newClient(t testing.TB, port int) *client {
	c := &client{url: fmt.Sprintf("https://127.0.0.1:%d", port), http: &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true,
	}}}
	t.Cleanup(c.http.CloseIdleConnections)
	return c
}

// start runs a server with an etcd of its own in this process until the test ends; each change is made to its
// configuration first.
func start(t testing.TB, changes ...func(*server.Config)) *client {
	t.Helper()
	dir := t.TempDir()
	c := &server.Config{Version: "v0.0.0-test"}
	c.AddFlags(pflag.NewFlagSet("test", pflag.ContinueOnError))
	c.AllowPrivileged = true
	c.BindAddress, c.SecurePort = "127.0.0.1", freePort(t)
	c.DataDir, c.CertDir = filepath.Join(dir, "data"), filepath.Join(dir, "certs")
	c.TokenAuthFile = writeTokens(t, dir)
	c.ServiceAccountIssuer, c.ServiceAccountSigningKeyFile = []string{"https://kubernetes.default.svc"}, writeKey(t, dir)
	c.AuthorizationMode = []string{"Node", "RBAC"}
	for _, change := range changes {
		change(c)
	}
	s, err := server.New(context.Background(), c)
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
	cl := newClient(t, c.SecurePort)
	cl.ready(t, 30*time.Second)
	return cl
}

// ready waits until the server says that it is.
func (c *client) ready(t testing.TB, most time.Duration) {
	t.Helper()
	deadline := time.Now().Add(most)
	for {
		if code, _, _, err := c.do(context.Background(), "GET", "/readyz", "", nil); err == nil && code == http.StatusOK {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the server was not ready after %v", most)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// do makes one request; an error is that of the connection.
func (c *client) do(ctx context.Context, method, path, body string, headers map[string]string) (int, http.Header, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.url+path, strings.NewReader(body))
	if err != nil {
		return 0, nil, nil, err
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
	resp, err := c.http.Do(req)
	if err != nil {
		return 0, nil, nil, err
	}
	defer resp.Body.Close() //nolint:errcheck // only read
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, resp.Header, b, err
}

// try is do for a server that is there.
func (c *client) try(t *testing.T, method, path, body string, headers map[string]string) (int, http.Header, []byte) {
	t.Helper()
	code, h, b, err := c.do(t.Context(), method, path, body, headers)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return code, h, b
}

// must is try for requests that have to succeed.
func (c *client) must(t *testing.T, method, path, body string) []byte {
	t.Helper()
	code, _, b := c.try(t, method, path, body, nil)
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

func freePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // nothing was written
	return l.Addr().(*net.TCPAddr).Port
}

func writeTokens(t testing.TB, dir string) string {
	t.Helper()
	return writeFile(t, dir, "tokens.csv", adminToken+",system:admin,1,system:masters\n")
}

// writeKey makes a key that signs service account tokens.
func writeKey(t testing.TB, dir string) string {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return writeFile(t, dir, "sa.key", string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})))
}

func writeFile(t testing.TB, dir, name, text string) string {
	t.Helper()
	p := filepath.Join(dir, name)
	if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return p
}
