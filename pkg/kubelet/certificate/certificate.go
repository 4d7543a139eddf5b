// Package certificate gets a node its certificates from the cluster's signers and renews them in time.
//
// Flow: Bootstrap turns a token into the first client certificate and a kubeconfig -> Rotator.Run renews one certificate
// when most of its life is over: new key, CertificateSigningRequest, wait for the signer, write the file, move the link
// <name>-current.pem. Readers open the link anew; they need no word from here. A Rotator belongs to its Run.
package certificate

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	mrand "math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"time"

	certv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sextant-k8s/sextant/pkg/kubelet/api"
)

// Rotator keeps one certificate valid.
type Rotator struct {
	Client *api.Client
	// Dir holds <Name>-current.pem, a link to the newest <Name>-<time>.pem, certificate and key together.
	Dir, Name string
	Signer    string
	Usage     certv1.KeyUsage
	Subject   pkix.Name
	DNS       []string
	IPs       []net.IP
	Log       *slog.Logger
}

// poll is how often a request is looked at while its signer makes up its mind.
const poll = time.Second

// Current is the path readers open.
func Current(dir, name string) string { return filepath.Join(dir, name+"-current.pem") }

// subject is a node's name as a user.
func subject(node string) pkix.Name {
	return pkix.Name{CommonName: "system:node:" + node, Organization: []string{"system:nodes"}}
}

// ForClient rotates the certificate with which a node speaks to the API.
func ForClient(c *api.Client, dir, node string, log *slog.Logger) *Rotator {
	return &Rotator{Client: c, Dir: dir, Name: "kubelet-client", Signer: certv1.KubeAPIServerClientKubeletSignerName, Usage: certv1.UsageClientAuth, Subject: subject(node), Log: log}
}

// ForServer rotates the certificate with which a node serves.
func ForServer(c *api.Client, dir, node string, ips []string, log *slog.Logger) *Rotator {
	r := &Rotator{Client: c, Dir: dir, Name: "kubelet-server", Signer: certv1.KubeletServingSignerName, Usage: certv1.UsageServerAuth, Subject: subject(node), DNS: []string{node}, Log: log}
	for _, ip := range ips {
		if p := net.ParseIP(ip); p != nil {
			r.IPs = append(r.IPs, p)
		}
	}
	return r
}

// Load reads a certificate with its key from one file; leaf is parsed.
func Load(path string) (tls.Certificate, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return tls.Certificate{}, err
	}
	c, err := tls.X509KeyPair(raw, raw)
	if err == nil && c.Leaf == nil {
		c.Leaf, err = x509.ParseCertificate(c.Certificate[0])
	}
	return c, err
}

// Run renews until ctx ends.
func (r *Rotator) Run(ctx context.Context) {
	wait := time.Second
	for ctx.Err() == nil {
		next := time.Time{}
		if c, err := Load(Current(r.Dir, r.Name)); err == nil {
			next = due(c.Leaf.NotBefore, c.Leaf.NotAfter, mrand.Float64())
		}
		if !sleep(ctx, time.Until(next)) {
			return
		}
		if err := r.Renew(ctx); err != nil {
			if ctx.Err() == nil {
				r.Log.Warn("renewing a certificate", "name", r.Name, "err", err)
			}
			sleep(ctx, wait)
			wait = min(2*wait, 5*time.Minute)
			continue
		}
		wait = time.Second
	}
}

// due is when to renew: after seven to nine tenths of the life, as luck (0 to 1) has it, so that not all nodes ask at once.
func due(from, to time.Time, luck float64) time.Time {
	return from.Add(time.Duration(float64(to.Sub(from)) * (0.7 + 0.2*luck)))
}

// Renew gets one certificate and makes it the current one.
func (r *Rotator) Renew(ctx context.Context) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	cert, err := r.request(ctx, key)
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	both := append(append([]byte(nil), cert...), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})...)
	if _, err := tls.X509KeyPair(both, both); err != nil {
		return fmt.Errorf("the signer's certificate does not fit the key: %w", err)
	}
	r.Log.Info("a new certificate", "name", r.Name)
	return store(r.Dir, r.Name, both, time.Now())
}

// request asks the signer and waits for its answer.
func (r *Rotator) request(ctx context.Context, key crypto.Signer) ([]byte, error) {
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: r.Subject, DNSNames: r.DNS, IPAddresses: r.IPs}, key)
	if err != nil {
		return nil, err
	}
	csr, err := r.Client.Requests.Create(ctx, "", &certv1.CertificateSigningRequest{ObjectMeta: metav1.ObjectMeta{GenerateName: "csr-"}, Spec: certv1.CertificateSigningRequestSpec{
		Request: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), SignerName: r.Signer, Usages: []certv1.KeyUsage{certv1.UsageDigitalSignature, r.Usage}}})
	if err != nil {
		return nil, fmt.Errorf("asking for a certificate: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, 15*time.Minute)
	defer cancel()
	for {
		for _, c := range csr.Status.Conditions {
			if c.Type == certv1.CertificateDenied || c.Type == certv1.CertificateFailed {
				return nil, fmt.Errorf("certificate signing request %s is %s: %s %s", csr.Name, c.Type, c.Reason, c.Message)
			}
		}
		if len(csr.Status.Certificate) > 0 {
			return csr.Status.Certificate, nil
		}
		if !sleep(ctx, poll) {
			return nil, fmt.Errorf("nobody signed certificate signing request %s: %w", csr.Name, ctx.Err())
		}
		if now, err := r.Client.Requests.Get(ctx, "", csr.Name); err == nil {
			csr = now
		}
	}
}

// store writes a new file and moves the link to it at once; a crash between leaves the old one current.
func store(dir, name string, both []byte, now time.Time) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	file := filepath.Join(dir, name+"-"+now.UTC().Format("2006-01-02-15-04-05")+".pem")
	if err := os.WriteFile(file, both, 0o600); err != nil {
		return err
	}
	tmp := Current(dir, name) + ".new"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := os.Symlink(file, tmp); err != nil {
		return err
	}
	return os.Rename(tmp, Current(dir, name))
}

// sleep waits, and answers false when ctx ended before.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(max(d, 0))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
