package server

import (
	"crypto/tls"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"

	"github.com/sextant-k8s/sextant/pkg/kubelet/metrics"
)

func TestDebuggingOff(t *testing.T) {
	no := false
	s := &Server{cfg: Config{Metrics: metrics.New("n1", "v1"), Kubelet: kubeletv1beta1.KubeletConfiguration{EnableDebuggingHandlers: &no}}}
	h := s.routes()
	for _, path := range []string{"/containerLogs/n/p/c", "/exec/n/p/c", "/attach/n/p/c", "/portForward/n/p", "/run/n/p/c", "/runningpods/", "/debug/pprof/heap", "/logs/"} {
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest(method, path, nil))
			if w.Code != http.StatusMethodNotAllowed || !strings.Contains(w.Body.String(), "Debug endpoints are disabled.") {
				t.Errorf("%s %s: %d %s", method, path, w.Code, w.Body)
			}
		}
	}
}

func TestTLSChoices(t *testing.T) {
	s := &Server{cfg: Config{CertDir: t.TempDir(), NodeName: "n1", Kubelet: kubeletv1beta1.KubeletConfiguration{TLSMinVersion: "VersionTLS13", TLSCipherSuites: []string{"TLS_AES_128_GCM_SHA256"}, TLSCurvePreferences: []int32{int32(tls.X25519)}}}}
	c, err := s.tlsConfig()
	if err != nil || c.MinVersion != tls.VersionTLS13 || len(c.CipherSuites) != 1 || len(c.CurvePreferences) != 1 {
		t.Errorf("%+v %v", c, err)
	}
	for _, k := range []kubeletv1beta1.KubeletConfiguration{{TLSMinVersion: "TLS9"}, {TLSCipherSuites: []string{"ROT13"}}} {
		s.cfg.Kubelet = k
		if _, err := s.tlsConfig(); err == nil {
			t.Errorf("%s %s is taken", k.TLSMinVersion, k.TLSCipherSuites)
		}
	}
}

// TestFiles: the node's logs are shown, and nothing beside them, whatever a pod that writes there links to.
func TestFiles(t *testing.T) {
	dir := t.TempDir()
	logs := filepath.Join(dir, "log")
	if err := errors.Join(os.MkdirAll(logs+"/sub", 0o755), os.WriteFile(logs+"/sub/x.log", []byte("0123456789"), 0o600), os.WriteFile(dir+"/secret", []byte("secret"), 0o600),
		os.Symlink("sub/x.log", logs+"/inside"), os.Symlink("../secret", logs+"/out"), os.Symlink(dir+"/secret", logs+"/far"), os.Symlink("..", logs+"/up")); err != nil {
		t.Fatal(err)
	}
	s := &Server{cfg: Config{Metrics: metrics.New("n1", "v1"), LogRoot: logs}}
	ask := func(path string) (int, string) {
		r, w := httptest.NewRequest(http.MethodGet, path, nil), httptest.NewRecorder()
		if path == "/logs/sub/x.log?part" {
			r.Header.Set("Range", "bytes=2-4")
		}
		s.routes().ServeHTTP(w, r)
		return w.Code, w.Body.String()
	}
	for path, want := range map[string]string{"/logs/": `<a href="sub/">sub/</a>`, "/logs/sub/x.log": "0123456789", "/logs/inside": "0123456789", "/logs/sub/x.log?part": "234"} {
		if code, text := ask(path); code > http.StatusPartialContent || !strings.Contains(text, want) {
			t.Errorf("%s: %d %s", path, code, text)
		}
	}
	for _, path := range []string{"/logs/out", "/logs/far", "/logs/up/secret", "/logs/none", "/logs/%2e%2e/secret"} {
		if code, text := ask(path); code < http.StatusMovedPermanently || strings.Contains(text, "secret\n") || text == "secret" {
			t.Errorf("%s: %d %s", path, code, text)
		}
	}
	no := false
	s.cfg.Kubelet.EnableSystemLogHandler = &no
	if code, text := ask("/logs/"); code != http.StatusMethodNotAllowed || !strings.Contains(text, "logs endpoint is disabled.") {
		t.Error(code, text)
	}
}
