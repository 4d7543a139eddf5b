package server

import (
	"crypto/tls"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"

	"github.com/sextant-k8s/sextant/pkg/kubelet/metrics"
)

func TestDebuggingOff(t *testing.T) {
	no := false
	s := &Server{cfg: Config{Metrics: metrics.New("n1", "v1"), Kubelet: kubeletv1beta1.KubeletConfiguration{EnableDebuggingHandlers: &no}}}
	h := s.routes()
	for _, path := range []string{"/containerLogs/n/p/c", "/exec/n/p/c", "/attach/n/p/c", "/portForward/n/p", "/run/n/p/c", "/runningpods/", "/debug/pprof/heap"} {
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
