package controllermanager

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
	goruntime "runtime"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	cliflag "k8s.io/component-base/cli/flag"

	"github.com/sextant-k8s/sextant/pkg/controllermanager/runtime"
)

// health is what the health endpoints tell.
type health struct{ leading atomic.Bool }

// serve answers health, metrics and profiles until ctx ends. Health is open to all unless flags say otherwise, the rest to
// those whom the apiserver allows.
func (m *Manager) serve(ctx context.Context) error {
	cert, err := m.certificate()
	if err != nil {
		return err
	}
	least, err := cliflag.TLSVersion(m.c.TLSMinVersion)
	if err != nil {
		return err
	}
	suites, err := cliflag.TLSCipherSuites(m.c.TLSCiphers)
	if err != nil {
		return err
	}
	protocols := []string{"h2", "http/1.1"}
	if m.c.NoHTTP2 {
		protocols = protocols[1:]
	}
	mux := http.NewServeMux()
	ok := func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "ok") }
	for _, path := range []string{"/healthz", "/livez", "/readyz"} {
		mux.HandleFunc(path, ok)
		mux.HandleFunc(path+"/", ok)
	}
	mux.Handle("/metrics", promhttp.HandlerFor(runtime.Metrics(), promhttp.HandlerOpts{}))
	if m.c.Profiling {
		mux.HandleFunc("/debug/pprof/", pprof.Index)
		mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
		mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
		if m.c.Contention {
			goruntime.SetBlockProfileRate(1)
			goruntime.SetMutexProfileFraction(1)
		}
	}
	s := &http.Server{
		Handler: m.guard.wrap(mux), ReadHeaderTimeout: 10 * time.Second, TLSConfig: &tls.Config{
			// A certificate is looked at when it is needed: the connection does not fail for one that we do not know.
			Certificates: []tls.Certificate{*cert}, MinVersion: max(least, tls.VersionTLS12), CipherSuites: suites, ClientAuth: tls.RequestClientCert, NextProtos: protocols,
		},
		ErrorLog: slog.NewLogLogger(slog.Default().Handler(), slog.LevelDebug),
	}
	go func() {
		<-ctx.Done()
		end, cancel := context.WithTimeout(context.Background(), grace)
		defer cancel()
		_ = s.Shutdown(end) // whoever is still asking is cut off
	}()
	if err := s.ServeTLS(m.listen, "", ""); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving health: %w", err)
	}
	return nil
}

// certificate reads the serving certificate, or makes one that lives as long as this run.
func (m *Manager) certificate() (*tls.Certificate, error) {
	if m.c.TLSCertFile != "" {
		cert, err := tls.LoadX509KeyPair(m.c.TLSCertFile, m.c.TLSKey)
		if err != nil {
			return nil, fmt.Errorf("reading --tls-cert-file and --tls-private-key-file: %w", err)
		}
		return &cert, nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making a serving certificate: %w", err)
	}
	host, err := os.Hostname()
	if err != nil {
		host = "localhost"
	}
	t := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: host}, DNSNames: []string{host, "localhost"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(1, 0, 0),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, &key.PublicKey, key)
	if err != nil {
		return nil, fmt.Errorf("making a serving certificate: %w", err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}
