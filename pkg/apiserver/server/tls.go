package server

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	cliflag "k8s.io/component-base/cli/flag"
)

// reread is how often certificate files are looked at for changes.
const reread = 10 * time.Second

// keyPair is a certificate that follows its files.
type keyPair struct {
	certFile, keyFile string

	mu     sync.Mutex
	cert   *tls.Certificate
	looked time.Time
	stamp  time.Time
}

// get answers the certificate; files that became unreadable leave the last good one.
func (k *keyPair) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.cert != nil && time.Since(k.looked) < reread {
		return k.cert, nil
	}
	k.looked = time.Now()
	st, err := os.Stat(k.certFile)
	if err == nil && k.cert != nil && st.ModTime().Equal(k.stamp) {
		return k.cert, nil
	}
	cert, err := tls.LoadX509KeyPair(k.certFile, k.keyFile)
	if err != nil {
		if k.cert != nil {
			slog.Error("the serving certificate cannot be reread, going on with the old one", "file", k.certFile, "err", err)
			return k.cert, nil
		}
		return nil, fmt.Errorf("reading the serving certificate: %w", err)
	}
	k.cert, k.stamp = &cert, st.ModTime()
	return k.cert, nil
}

// serving makes the TLS configuration; a certificate is made and kept if none is given.
func serving(c *Config) (*tls.Config, error) {
	pair := &keyPair{certFile: c.TLSCertFile, keyFile: c.TLSKeyFile}
	if pair.certFile == "" {
		pair.certFile, pair.keyFile = filepath.Join(c.CertDir, "apiserver.crt"), filepath.Join(c.CertDir, "apiserver.key")
		if _, err := tls.LoadX509KeyPair(pair.certFile, pair.keyFile); err != nil {
			if err := selfSign(c, pair.certFile, pair.keyFile); err != nil {
				return nil, fmt.Errorf("making a self-signed certificate in --cert-dir: %w", err)
			}
		}
	}
	if _, err := pair.get(nil); err != nil {
		return nil, err
	}
	named, err := namedPairs(c.SNICertKeys)
	if err != nil {
		return nil, err
	}
	least, err := cliflag.TLSVersion(c.TLSMinVersion)
	if err != nil {
		return nil, fmt.Errorf("--tls-min-version %q: give VersionTLS12 or VersionTLS13", c.TLSMinVersion)
	}
	suites, err := cliflag.TLSCipherSuites(c.TLSCipherSuites)
	if err != nil {
		return nil, fmt.Errorf("--tls-cipher-suites: %w", err)
	}
	var curves []tls.CurveID
	for _, n := range c.TLSCurves {
		id := tls.CurveID(n) //nolint:gosec // what does not fit has no name
		if int32(id) != n || strings.HasPrefix(id.String(), "CurveID(") {
			return nil, fmt.Errorf("--tls-curve-preferences: %d is no key exchange of crypto/tls", n)
		}
		curves = append(curves, id)
	}
	protocols := []string{"h2", "http/1.1"}
	if c.DisableHTTP2 {
		protocols = protocols[1:]
	}
	// Client certificates are asked for and verified later, by authentication, which knows the CAs of the moment.
	return &tls.Config{
		MinVersion: max(least, tls.VersionTLS12), CipherSuites: suites, CurvePreferences: curves, ClientAuth: tls.RequestClientCert, NextProtos: protocols,
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			return named.pick(hello.ServerName, pair).get(hello)
		},
		// Most answers are larger than one packet and few clients are far away: a record per packet costs a system call each.
		DynamicRecordSizingDisabled: true,
	}, nil
}

func selfSign(c *Config, certFile, keyFile string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return err
	}
	host := c.advertise()
	t := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: host + "@" + fmt.Sprint(time.Now().Unix())},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(1, 0, 0), IsCA: true, BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:    []string{"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local", "localhost"},
		IPAddresses: []net.IP{net.ParseIP("127.0.0.1"), net.ParseIP(host)},
	}
	if cidrs, err := c.serviceCIDRs(); err == nil {
		t.IPAddresses = append(t.IPAddresses, cidrs[0].Addr().Next().AsSlice())
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, &key.PublicKey, key)
	if err != nil {
		return err
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(certFile), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER}), 0o600); err != nil {
		return err
	}
	return os.WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644)
}

// proxyIdentity reads the front-proxy certificate anew for each connection, so that a renewed one is taken up; nil if there
// is none.
func (c *Config) proxyIdentity() func() (*tls.Certificate, error) {
	if c.ProxyClientCert == "" {
		return nil
	}
	return func() (*tls.Certificate, error) {
		cert, err := tls.LoadX509KeyPair(c.ProxyClientCert, c.ProxyClientKey)
		return &cert, err
	}
}
