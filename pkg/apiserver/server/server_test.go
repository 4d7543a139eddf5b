package server

import (
	"crypto/tls"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
	corev1 "k8s.io/api/core/v1"

	"github.com/sextant-k8s/sextant/pkg/apiserver/rig"
)

// testServer is a real server with its own etcd, on a loopback port.
type testServer struct {
	*Server // nil where it is another process
	*rig.Client
}

// container is one that is privileged or not.
func container(privileged *bool) corev1.Container {
	return corev1.Container{Name: "c", Image: "i", SecurityContext: &corev1.SecurityContext{Privileged: privileged}}
}

// start runs a server until the test ends, and waits until it is ready; each change is made to its configuration first.
func start(t *testing.T, changes ...func(*Config)) *testServer {
	t.Helper()
	ts := begin(t, changes...)
	ts.Ready(t, 30*time.Second)
	return ts
}

// begin is start that does not wait.
func begin(t *testing.T, changes ...func(*Config)) *testServer {
	t.Helper()
	c := &Config{Version: "v0.0.0-test"}
	fs := pflag.NewFlagSet("test", pflag.ContinueOnError)
	c.AddFlags(fs)
	if err := fs.Parse(rig.Flags(t, t.TempDir())); err != nil {
		t.Fatal(err)
	}
	for _, change := range changes {
		change(c)
	}
	s, err := New(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	rig.Run(t, s.Run)
	return &testServer{Server: s, Client: rig.NewClient(t, c.SecurePort)}
}

// TestLastAnswer asks for large answers on connections that end with them: they arrive whole.
func TestLastAnswer(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.HTTP.Transport = &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true, TLSNextProto: map[string]func(string, *tls.Conn) http.RoundTripper{}}
	long := strings.Repeat("a", 3000)
	for range 100 {
		code, _, b := s.Try(t, "POST", "/api/v1/namespaces/default/configmaps", `{"metadata":{"name":"`+long+`"}}`, nil)
		if code != http.StatusUnprocessableEntity || strings.Count(string(b), long) < 3 {
			t.Fatalf("%d with %d bytes", code, len(b))
		}
	}
}
