package certificates

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	certificateslisters "k8s.io/client-go/listers/certificates/v1"

	"github.com/sextant-k8s/sextant/pkg/controllermanager/runtime"
)

// CA is where a signer's certificate and key are.
type CA struct{ Cert, Key string }

// Config is who signs what.
type Config struct {
	KubeletServing, KubeletClient, APIServerClient, LegacyUnknown CA
	Duration                                                      time.Duration // the longest life of a certificate
}

func (c Config) of(signer string) CA {
	return map[string]CA{
		certificatesv1.KubeletServingSignerName: c.KubeletServing, certificatesv1.KubeAPIServerClientKubeletSignerName: c.KubeletClient,
		certificatesv1.KubeAPIServerClientSignerName: c.APIServerClient, legacyUnknown: c.LegacyUnknown,
	}[signer]
}

// backdate is how much older than now a certificate says it is, for clocks that are behind.
const backdate = 5 * time.Minute

type signing struct {
	runtime.Deps
	Config
	requests certificateslisters.CertificateSigningRequestLister
}

// NewSigning answers the controller that signs.
func NewSigning(d runtime.Deps, conf Config) *runtime.Controller {
	requests := d.Informers.Certificates().V1().CertificateSigningRequests()
	s := &signing{d, conf, requests.Lister()}
	return &runtime.Controller{
		Name: "certificatesigningrequest-signing-controller", Account: "certificate-controller", Queue: "certificate", For: "certificates that were approved, signed",
		Watches: []runtime.Watch{{What: "certificatesigningrequests", Informer: requests.Informer(), Keys: runtime.Self}},
		Writes:  []string{"certificatesigningrequests/status"}, Reconcile: s.reconcile,
	}
}

func (s *signing) reconcile(ctx context.Context, key runtime.Key) (time.Duration, error) {
	r, err := s.requests.Get(key.Name)
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	ca := s.of(r.Spec.SignerName)
	if ca == (CA{}) || len(r.Status.Certificate) > 0 || !has(r, certificatesv1.CertificateApproved) || has(r, certificatesv1.CertificateDenied) || has(r, certificatesv1.CertificateFailed) {
		return 0, nil
	}
	next := r.DeepCopy()
	x, err := parse(r)
	if err == nil {
		err = allowed(r, x)
	}
	if err == nil {
		err = x.CheckSignature()
	}
	if err != nil {
		now := metav1.Now()
		next.Status.Conditions = append(next.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{
			Type: certificatesv1.CertificateFailed, Status: corev1.ConditionTrue, Reason: "SignerValidationFailure", Message: err.Error(), LastUpdateTime: now, LastTransitionTime: now,
		})
	} else if next.Status.Certificate, err = s.sign(r, x, ca, time.Now()); err != nil {
		return 0, fmt.Errorf("signing %s: %w", r.Name, err)
	}
	slog.Info("certificate request", "name", r.Name, "signer", r.Spec.SignerName, "signed", len(next.Status.Certificate) > 0)
	_, err = s.Client.CertificatesV1().CertificateSigningRequests().UpdateStatus(ctx, next, metav1.UpdateOptions{})
	return 0, err
}

// sign makes a certificate, PEM encoded, that lives as long as was asked for, at most as long as may be and as the CA does.
func (s *signing) sign(r *certificatesv1.CertificateSigningRequest, x *x509.CertificateRequest, ca CA, now time.Time) ([]byte, error) {
	pair, err := tls.LoadX509KeyPair(ca.Cert, ca.Key)
	if err != nil {
		return nil, fmt.Errorf("reading the CA: %w", err)
	}
	issuer, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		return nil, fmt.Errorf("reading the CA: %w", err)
	}
	life := s.Duration
	if e := r.Spec.ExpirationSeconds; e != nil {
		life = min(life, max(time.Duration(*e)*time.Second, 10*time.Minute))
	}
	end := now.Add(life)
	if issuer.NotAfter.Before(end) {
		end = issuer.NotAfter
	}
	if !end.After(now) {
		return nil, fmt.Errorf("the CA's certificate is over since %s", issuer.NotAfter)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	t := &x509.Certificate{
		SerialNumber: serial, Subject: x.Subject, DNSNames: x.DNSNames, IPAddresses: x.IPAddresses, EmailAddresses: x.EmailAddresses, URIs: x.URIs,
		NotBefore: now.Add(-min(backdate, life)), NotAfter: end, BasicConstraintsValid: true,
	}
	for _, u := range r.Spec.Usages {
		t.KeyUsage |= keyUsages[u]
		if e, ok := extended[u]; ok {
			t.ExtKeyUsage = append(t.ExtKeyUsage, e)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, t, issuer, x.PublicKey, pair.PrivateKey)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}

var keyUsages = map[certificatesv1.KeyUsage]x509.KeyUsage{
	certificatesv1.UsageSigning: x509.KeyUsageDigitalSignature, certificatesv1.UsageDigitalSignature: x509.KeyUsageDigitalSignature,
	certificatesv1.UsageContentCommitment: x509.KeyUsageContentCommitment, certificatesv1.UsageKeyEncipherment: x509.KeyUsageKeyEncipherment,
	certificatesv1.UsageKeyAgreement: x509.KeyUsageKeyAgreement, certificatesv1.UsageDataEncipherment: x509.KeyUsageDataEncipherment,
	certificatesv1.UsageCertSign: x509.KeyUsageCertSign, certificatesv1.UsageCRLSign: x509.KeyUsageCRLSign,
	certificatesv1.UsageEncipherOnly: x509.KeyUsageEncipherOnly, certificatesv1.UsageDecipherOnly: x509.KeyUsageDecipherOnly,
}

var extended = map[certificatesv1.KeyUsage]x509.ExtKeyUsage{
	certificatesv1.UsageAny: x509.ExtKeyUsageAny, certificatesv1.UsageServerAuth: x509.ExtKeyUsageServerAuth, certificatesv1.UsageClientAuth: x509.ExtKeyUsageClientAuth,
	certificatesv1.UsageCodeSigning: x509.ExtKeyUsageCodeSigning, certificatesv1.UsageEmailProtection: x509.ExtKeyUsageEmailProtection,
	certificatesv1.UsageSMIME: x509.ExtKeyUsageEmailProtection, certificatesv1.UsageIPsecEndSystem: x509.ExtKeyUsageIPSECEndSystem,
	certificatesv1.UsageIPsecTunnel: x509.ExtKeyUsageIPSECTunnel, certificatesv1.UsageIPsecUser: x509.ExtKeyUsageIPSECUser,
	certificatesv1.UsageTimestamping: x509.ExtKeyUsageTimeStamping, certificatesv1.UsageOCSPSigning: x509.ExtKeyUsageOCSPSigning,
	certificatesv1.UsageMicrosoftSGC: x509.ExtKeyUsageMicrosoftServerGatedCrypto, certificatesv1.UsageNetscapeSGC: x509.ExtKeyUsageNetscapeServerGatedCrypto,
}
