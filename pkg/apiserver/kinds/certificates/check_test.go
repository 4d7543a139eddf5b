package certificates

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"testing"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

type csr = certificatesv1.CertificateSigningRequest

// material answers a signing request and a certificate, both in PEM form.
func material(t *testing.T) (request, cert []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	asked, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "a"}}, key)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: asked}), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func good(t *testing.T) (*csr, []byte) {
	request, cert := material(t)
	return &csr{ObjectMeta: metav1.ObjectMeta{Name: "x", ResourceVersion: "1"}, Spec: certificatesv1.CertificateSigningRequestSpec{
		Request: request, SignerName: "example.com/a", Usages: []certificatesv1.KeyUsage{certificatesv1.UsageClientAuth},
	}}, cert
}

func TestNewRequests(t *testing.T) {
	for want, change := range map[string]func(c *csr){
		"":                                func(*csr) {},
		`spec.signerName: Required value`: func(c *csr) { c.Spec.SignerName = "" },
		`spec.signerName: Invalid value: "a": must be a fully qualified domain and path of the form 'example.com/signer-name'`: func(c *csr) { c.Spec.SignerName = "a" },
		`spec.signerName: Invalid value: "a": should be a domain with at least two segments separated by dots`:                 func(c *csr) { c.Spec.SignerName = "a/b" },
		`spec.usages: Required value`:                    func(c *csr) { c.Spec.Usages = nil },
		`spec.usages[1]: Duplicate value: "client auth"`: func(c *csr) { c.Spec.Usages = append(c.Spec.Usages, c.Spec.Usages[0]) },
		`spec.expirationSeconds: Invalid value: 599: may not specify a duration less than 600 seconds (10 minutes)`: func(c *csr) { c.Spec.ExpirationSeconds = new(int32(599)) },
	} {
		c, _ := good(t)
		change(c)
		got := ""
		if errs := check(nil, c, nil); len(errs) > 0 {
			got = errs.ToAggregate().Error()
		}
		if got != want {
			t.Errorf("answered %q, want %q", got, want)
		}
	}
	c, _ := good(t)
	c.Spec.Request = []byte("none")
	if errs := check(nil, c, nil); len(errs) != 1 || errs[0].Field != "spec.request" || errs[0].Detail != "PEM block type must be CERTIFICATE REQUEST" {
		t.Errorf("no request at all: %v", errs)
	}
}

func TestChangesThroughSubresources(t *testing.T) {
	is := func(types ...certificatesv1.RequestConditionType) (out []certificatesv1.CertificateSigningRequestCondition) {
		for _, n := range types {
			out = append(out, certificatesv1.CertificateSigningRequestCondition{Type: n, Status: corev1.ConditionTrue, LastUpdateTime: metav1.Unix(1, 0), LastTransitionTime: metav1.Unix(1, 0)})
		}
		return out
	}
	const approved, denied, failed = certificatesv1.CertificateApproved, certificatesv1.CertificateDenied, certificatesv1.CertificateFailed
	_, cert := material(t)
	for _, c := range []struct {
		sub      string
		was, now []certificatesv1.CertificateSigningRequestCondition
		had, has []byte
		want     string
	}{
		{"approval", nil, is(approved), nil, nil, ""},
		{"approval", nil, is(approved, denied), nil, nil, `status.conditions[1].type: Invalid value: "Denied": Approved and Denied conditions are mutually exclusive`},
		{"approval", is(approved), nil, nil, nil, `status.conditions: Forbidden: updates may not remove a condition of type "Approved"`},
		{"status", nil, is(approved), nil, nil, `status.conditions: Forbidden: updates may not add a condition of type "Approved"`},
		{"status", nil, is(denied), nil, nil, `status.conditions: Forbidden: updates may not add a condition of type "Denied"`},
		{"status", is(approved), is(approved, failed), nil, nil, ""},
		{"status", nil, is("Own", "Own"), nil, nil, `status.conditions[1].type: Duplicate value: "Own"`},
		{"status", is(approved), is(approved), nil, cert, ""},
		{"status", nil, nil, cert, []byte("other"), `status.certificate: Forbidden: updates may not modify existing certificate content`},
		{"status", nil, nil, nil, []byte("none"), `status.certificate: Invalid value: "<certificate data>": must contain at least one CERTIFICATE PEM block`},
		{"approval", nil, nil, nil, cert, ""}, // it is left as it was
	} {
		old, _ := good(t)
		old.Status.Conditions, old.Status.Certificate = c.was, c.had
		obj := old.DeepCopy()
		obj.Status.Conditions, obj.Status.Certificate = c.now, c.has
		obj.Spec.SignerName = "example.com/other"
		rules := CertificateSigningRequest().Sub(c.sub).Aspect
		rules.Prepare(&kind.Op{}, obj, old)
		if obj.Spec.SignerName != old.Spec.SignerName || c.sub == "approval" && string(obj.Status.Certificate) != string(c.had) {
			t.Errorf("%s changed what is not its own", c.sub)
		}
		got := ""
		if errs := rules.Check(nil, obj, old); len(errs) > 0 {
			got = errs.ToAggregate().Error()
		}
		if got != c.want {
			t.Errorf("%s from %v to %v: answered %q, want %q", c.sub, c.was, c.now, got, c.want)
		}
	}
}
