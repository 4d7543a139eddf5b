package certificates

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sextant-k8s/sextant/pkg/controllermanager/golden"
)

// TestDecide shows, for each request, whether its signer may sign it, by which rights it is approved, and when it goes.
func TestDecide(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	golden.Run(t, func(t *testing.T, files map[string]string) string {
		var b strings.Builder
		for _, a := range golden.Objects[struct {
			Request certificatesv1.CertificateSigningRequest `json:"request"`
			CN      string                                   `json:"cn"`
			O       []string                                 `json:"o"`
			DNS     []string                                 `json:"dns"`
			IP      string                                   `json:"ip"`
			Mail    []string                                 `json:"mail"`
			URI     string                                   `json:"uri"`
			Until   time.Time                                `json:"until"` // of the certificate that it has, if any
		}](t, files["requests.yaml"]) {
			tmpl := &x509.CertificateRequest{Subject: pkix.Name{CommonName: a.CN, Organization: a.O}, DNSNames: a.DNS, EmailAddresses: a.Mail}
			if a.IP != "" {
				tmpl.IPAddresses = []net.IP{net.ParseIP(a.IP)}
			}
			if a.URI != "" {
				u, err := url.Parse(a.URI)
				if err != nil {
					t.Fatal(err)
				}
				tmpl.URIs = []*url.URL{u}
			}
			der, err := x509.CreateCertificateRequest(rand.Reader, tmpl, key)
			if err != nil {
				t.Fatal(err)
			}
			r := &a.Request
			r.Spec.Request = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
			if !a.Until.IsZero() {
				cert := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: a.Until}
				if der, err = x509.CreateCertificate(rand.Reader, cert, cert, &key.PublicKey, key); err != nil {
					t.Fatal(err)
				}
				r.Status.Certificate = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
			}
			r.CreationTimestamp = metav1.NewTime(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
			fmt.Fprintf(&b, "%s\n", r.Name)
			x, err := parse(r)
			if err != nil {
				t.Fatal(err)
			}
			if err := allowed(r, x); err != nil {
				fmt.Fprintf(&b, "  not signed: %v\n", err)
			} else {
				b.WriteString("  signed if approved\n")
			}
			for _, g := range approve(r) {
				fmt.Fprintf(&b, "  approved by %s\n", g.Subresource)
			}
			fmt.Fprintf(&b, "  goes %s\n", expires(r).UTC().Format(time.DateTime))
		}
		return b.String()
	})
}
