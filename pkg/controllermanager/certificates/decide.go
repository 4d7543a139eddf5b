package certificates

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
)

// has tells whether a request carries a condition.
func has(r *certificatesv1.CertificateSigningRequest, t certificatesv1.RequestConditionType) bool {
	return slices.ContainsFunc(r.Status.Conditions, func(c certificatesv1.CertificateSigningRequestCondition) bool {
		return c.Type == t && c.Status != corev1.ConditionFalse
	})
}

// parse reads what a request asks for.
func parse(r *certificatesv1.CertificateSigningRequest) (*x509.CertificateRequest, error) {
	block, _ := pem.Decode(r.Spec.Request)
	if block == nil || block.Type != "CERTIFICATE REQUEST" {
		return nil, errors.New("PEM block type must be CERTIFICATE REQUEST")
	}
	x, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("unable to parse csr %q: %w", r.Name, err)
	}
	return x, nil
}

// usages compares a request's usages with lists of which it has to equal one.
func usages(r *certificatesv1.CertificateSigningRequest, allowed ...[]certificatesv1.KeyUsage) bool {
	have := slices.Clone(r.Spec.Usages)
	slices.Sort(have)
	have = slices.Compact(have)
	return slices.ContainsFunc(allowed, func(want []certificatesv1.KeyUsage) bool {
		w := slices.Clone(want)
		slices.Sort(w)
		return slices.Equal(have, w)
	})
}

var (
	clientUsages = [][]certificatesv1.KeyUsage{
		{certificatesv1.UsageKeyEncipherment, certificatesv1.UsageDigitalSignature, certificatesv1.UsageClientAuth},
		{certificatesv1.UsageDigitalSignature, certificatesv1.UsageClientAuth},
	}
	servingUsages = [][]certificatesv1.KeyUsage{
		{certificatesv1.UsageKeyEncipherment, certificatesv1.UsageDigitalSignature, certificatesv1.UsageServerAuth},
		{certificatesv1.UsageDigitalSignature, certificatesv1.UsageServerAuth},
	}
)

// node says what is wrong with the name in a node's certificate, nil if nothing is.
func node(x *x509.CertificateRequest) error {
	if !slices.Equal(x.Subject.Organization, []string{"system:nodes"}) {
		return errors.New("organization is not system:nodes")
	}
	if !strings.HasPrefix(x.Subject.CommonName, "system:node:") {
		return errors.New("subject common name does not begin with system:node:")
	}
	return nil
}

// kubeletClient says what is wrong with a request for a kubelet's client certificate, nil if nothing is.
func kubeletClient(r *certificatesv1.CertificateSigningRequest, x *x509.CertificateRequest) error {
	if err := node(x); err != nil {
		return err
	}
	switch {
	case len(x.DNSNames) > 0:
		return errors.New("DNS subjectAltNames are not allowed")
	case len(x.EmailAddresses) > 0:
		return errors.New("email subjectAltNames are not allowed")
	case len(x.IPAddresses) > 0:
		return errors.New("IP subjectAltNames are not allowed")
	case len(x.URIs) > 0:
		return errors.New("URI subjectAltNames are not allowed")
	case !usages(r, clientUsages...):
		return errors.New("usages did not match [key encipherment digital signature client auth] or [digital signature client auth]")
	}
	return nil
}

// kubeletServing says the same of its serving certificate.
func kubeletServing(r *certificatesv1.CertificateSigningRequest, x *x509.CertificateRequest) error {
	if err := node(x); err != nil {
		return err
	}
	switch {
	case len(x.DNSNames) == 0 && len(x.IPAddresses) == 0:
		return errors.New("at least one DNS or IP subjectAltName is required")
	case len(x.EmailAddresses) > 0:
		return errors.New("email subjectAltNames are not allowed")
	case len(x.URIs) > 0:
		return errors.New("URI subjectAltNames are not allowed")
	case !usages(r, servingUsages...):
		return errors.New("usages did not match [key encipherment digital signature server auth] or [digital signature server auth]")
	}
	return nil
}

// allowed says why a signer must not sign a request, nil if it may.
func allowed(r *certificatesv1.CertificateSigningRequest, x *x509.CertificateRequest) error {
	switch r.Spec.SignerName {
	case certificatesv1.KubeletServingSignerName:
		return kubeletServing(r, x)
	case certificatesv1.KubeAPIServerClientKubeletSignerName:
		return kubeletClient(r, x)
	case certificatesv1.KubeAPIServerClientSignerName:
		for _, u := range r.Spec.Usages {
			if !slices.Contains(clientUsages[0], u) {
				return fmt.Errorf("invalid usage for client certificate: %s", u)
			}
		}
		if !slices.Contains(r.Spec.Usages, certificatesv1.UsageClientAuth) {
			return fmt.Errorf("missing required usage for client certificate: %s", certificatesv1.UsageClientAuth)
		}
		return nil
	case legacyUnknown:
		return nil
	}
	return fmt.Errorf("unrecognized signer: %q", r.Spec.SignerName)
}

// legacyUnknown is the signer of requests of before there were signers.
const legacyUnknown = "kubernetes.io/legacy-unknown"

// Grant is a right that lets a request be approved by itself.
type Grant struct{ Subresource, Message string }

// approve answers which rights, of which one is enough, let a request be approved; none if it is not one of those.
func approve(r *certificatesv1.CertificateSigningRequest) []Grant {
	if r.Spec.SignerName != certificatesv1.KubeAPIServerClientKubeletSignerName || len(r.Status.Certificate) > 0 ||
		has(r, certificatesv1.CertificateApproved) || has(r, certificatesv1.CertificateDenied) || has(r, certificatesv1.CertificateFailed) {
		return nil
	}
	x, err := parse(r)
	if err != nil || kubeletClient(r, x) != nil {
		return nil
	}
	grants := []Grant{{"nodeclient", "Auto approving kubelet client certificate after SubjectAccessReview."}}
	if r.Spec.Username == x.Subject.CommonName {
		grants = append([]Grant{{"selfnodeclient", "Auto approving self kubelet client certificate after SubjectAccessReview."}}, grants...)
	}
	return grants
}

// How long a request is kept when it is over, and how long when nobody decided about it.
const (
	keepOver    = time.Hour
	keepPending = 24 * time.Hour
)

// expires answers when a request is to be forgotten.
func expires(r *certificatesv1.CertificateSigningRequest) time.Time {
	out := r.CreationTimestamp.Add(keepPending)
	sooner := func(t time.Time) {
		if t.Before(out) {
			out = t
		}
	}
	for _, c := range r.Status.Conditions {
		at := c.LastUpdateTime.Time
		if at.IsZero() {
			at = r.CreationTimestamp.Time
		}
		switch {
		case c.Type == certificatesv1.CertificateApproved && len(r.Status.Certificate) == 0: // it may still be signed
		case c.Type == certificatesv1.CertificateApproved, c.Type == certificatesv1.CertificateDenied, c.Type == certificatesv1.CertificateFailed:
			sooner(at.Add(keepOver))
		}
	}
	if block, _ := pem.Decode(r.Status.Certificate); block != nil {
		if x, err := x509.ParseCertificate(block.Bytes); err == nil {
			sooner(x.NotAfter)
		}
	}
	return out
}
