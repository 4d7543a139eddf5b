package certificates

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// authority answers a certificate in PEM form, of an authority or not.
func authority(t *testing.T, key crypto.Signer, ca bool, life time.Duration) string {
	t.Helper()
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Unix(1e9, 0), NotAfter: time.Unix(1e9, 0).Add(life), IsCA: ca, BasicConstraintsValid: ca}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestBundles(t *testing.T) {
	key := newKey(t)
	ca, leaf := authority(t, key, true, time.Hour), authority(t, key, false, time.Hour)
	for _, c := range []struct{ name, signer, bundle, want string }{
		{"plain", "", ca, ""},
		{"example.com:a:x", "example.com/a", ca, ""},
		{"a:b", "", ca, `metadata.name: Invalid value: "a:b": ClusterTrustBundle without signer name must not have ":" in its name`},
		{"plain", "example.com/a", ca, `metadata.name: Invalid value: "plain": ClusterTrustBundle for signerName example.com/a must be named with prefix example.com:a:`},
		{"plain", "", "", "at least one trust anchor must be provided"},
		{"plain", "", ca + ca, "duplicate trust anchor (indices 0, 1)"},
		{"plain", "", leaf, "entry 0 does not have the CA bit set"},
		{"plain", "", strings.ReplaceAll(ca, "CERTIFICATE", "X"), "entry 0 has bad block type: X"},
		{"plain", "", strings.Repeat("x", maxBundle+1), "spec.trustBundle: Too long"},
	} {
		got := ""
		b := &certificatesv1.ClusterTrustBundle{ObjectMeta: metav1.ObjectMeta{Name: c.name}, Spec: certificatesv1.ClusterTrustBundleSpec{SignerName: c.signer, TrustBundle: c.bundle}}
		if errs := checkBundle(nil, b, nil); len(errs) > 0 {
			got = errs.ToAggregate().Error()
		}
		if (c.want == "") != (got == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s of %q: %q, want %q", c.name, c.signer, got, c.want)
		}
	}
}

// request is one of a pod, for a key.
func request(t *testing.T, key crypto.Signer) *certificatesv1.PodCertificateRequest {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	return &certificatesv1.PodCertificateRequest{ObjectMeta: metav1.ObjectMeta{Name: "r", Namespace: "n", ResourceVersion: "1"}, Spec: certificatesv1.PodCertificateRequestSpec{
		SignerName: "example.com/a", PodName: "p", PodUID: "1", ServiceAccountName: "default", ServiceAccountUID: "2", NodeName: "n", NodeUID: "3", MaxExpirationSeconds: new(int32(86400)), StubPKCS10Request: der,
	}}
}

func TestPodRequests(t *testing.T) {
	key := newKey(t)
	weak, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(r *certificatesv1.PodCertificateRequest){
		"":                     func(*certificatesv1.PodCertificateRequest) {},
		"spec.podUID: Invalid": func(r *certificatesv1.PodCertificateRequest) { r.Spec.PodUID = "" },
		"spec.maxExpirationSeconds: Invalid value: 60: must be in the range [3600, 7862400]": func(r *certificatesv1.PodCertificateRequest) { *r.Spec.MaxExpirationSeconds = 60 },
		"spec.maxExpirationSeconds: Invalid value: 100000: must be in the range [3600, 86400]": func(r *certificatesv1.PodCertificateRequest) {
			r.Spec.SignerName, *r.Spec.MaxExpirationSeconds = "kubernetes.io/x", 100000
		},
		"RSA keys must have modulus size 3072 or 4096, not 2048": func(r *certificatesv1.PodCertificateRequest) { *r = *request(t, weak) },
		"must be a valid PKCS#10 request":                        func(r *certificatesv1.PodCertificateRequest) { r.Spec.StubPKCS10Request = []byte("x") },
		`spec.unverifiedUserAnnotations: Invalid value: "plain": keys must be domain-prefixed`: func(r *certificatesv1.PodCertificateRequest) {
			r.Spec.UnverifiedUserAnnotations = map[string]string{"plain": "x"}
		},
	} {
		r := request(t, key)
		change(r)
		got := ""
		if errs := checkPodRequest(nil, r, nil); len(errs) > 0 {
			got = errs.ToAggregate().Error()
		}
		if (want == "") != (got == "") || !strings.Contains(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestPodAnswers(t *testing.T) {
	key, start := newKey(t), metav1.Unix(1e9, 0)
	issued := func(chain string, life time.Duration) certificatesv1.PodCertificateRequestStatus {
		end, refresh := metav1.NewTime(start.Add(life)), metav1.NewTime(start.Add(life/2))
		return certificatesv1.PodCertificateRequestStatus{CertificateChain: chain, NotBefore: &start, NotAfter: &end, BeginRefreshAt: &refresh,
			Conditions: []metav1.Condition{{Type: "Issued", Status: metav1.ConditionTrue, Reason: "Signed", LastTransitionTime: start}}}
	}
	good := issued(authority(t, key, false, 2*time.Hour), 2*time.Hour)
	for _, c := range []struct {
		name     string
		was, now certificatesv1.PodCertificateRequestStatus
		want     string
	}{
		{"issued", certificatesv1.PodCertificateRequestStatus{}, good, ""},
		{"once only", good, issued(authority(t, key, false, 3*time.Hour), 3*time.Hour), "its status is immutable"},
		{"somebody else's key", certificatesv1.PodCertificateRequestStatus{}, issued(authority(t, newKey(t), false, 2*time.Hour), 2*time.Hour), "leaf certificate was not issued to the requested public key"},
		{"too short", certificatesv1.PodCertificateRequestStatus{}, issued(authority(t, key, false, time.Minute), time.Minute), "leaf certificate lifetime must be >= 1 hour"},
		{"too long", certificatesv1.PodCertificateRequestStatus{}, issued(authority(t, key, false, 48*time.Hour), 48*time.Hour), "leaf certificate lifetime must be >= 1 hour and <= 24h0m0s"},
		{"other times", certificatesv1.PodCertificateRequestStatus{}, issued(authority(t, key, false, 2*time.Hour), 3*time.Hour), "must be set to the NotAfter time"},
		{"no end", certificatesv1.PodCertificateRequestStatus{}, certificatesv1.PodCertificateRequestStatus{CertificateChain: "x"}, "may only be set together with"},
	} {
		r, old := request(t, key), request(t, key)
		old.Spec = r.Spec
		r.Status, old.Status = c.now, c.was
		got := ""
		if errs := checkPodAnswer(nil, r, old); len(errs) > 0 {
			got = errs.ToAggregate().Error()
		}
		if (c.want == "") != (got == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}
