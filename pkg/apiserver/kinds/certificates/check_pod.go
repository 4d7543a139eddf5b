package certificates

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

// The bounds of what a pod's certificate may be asked for.
const (
	minPodSeconds   = 3600
	maxPodSeconds   = 91 * 86400
	maxOwnSeconds   = 86400 // of signers of kubernetes.io
	maxUID          = 128
	maxChain        = 100 << 10
	refreshDistance = 10 * time.Minute // of beginRefreshAt from both ends of the certificate's life
)

// checkPodRequest answers what is wrong with a new request; a request that is there does not change.
func checkPodRequest(_ *kind.Op, r, old *certificatesv1.PodCertificateRequest) field.ErrorList {
	errs := validation.ValidateObjectMeta(&r.ObjectMeta, true, validation.NameIsDNSSubdomain, field.NewPath("metadata"))
	at := field.NewPath("spec")
	if old != nil {
		errs = append(errs, validation.ValidateObjectMetaUpdate(&r.ObjectMeta, &old.ObjectMeta, field.NewPath("metadata"))...)
		return append(errs, validation.ValidateImmutableField(r.Spec, old.Spec, at)...)
	}
	s := &r.Spec
	errs = append(errs, checkSigner(s.SignerName, at.Child("signerName"))...)
	for _, n := range []struct{ field, name, uid string }{
		{"pod", s.PodName, string(s.PodUID)}, {"serviceAccount", s.ServiceAccountName, string(s.ServiceAccountUID)}, {"node", string(s.NodeName), string(s.NodeUID)},
	} {
		for _, m := range validation.NameIsDNSSubdomain(n.name, false) {
			errs = append(errs, field.Invalid(at.Child(n.field+"Name"), n.name, m))
		}
		switch {
		case n.uid == "":
			errs = append(errs, field.Invalid(at.Child(n.field+"UID"), n.uid, "must not be empty"))
		case len(n.uid) > maxUID:
			errs = append(errs, field.TooLong(at.Child(n.field+"UID"), n.uid, maxUID))
		}
	}
	errs = append(errs, checkLife(s, at.Child("maxExpirationSeconds"))...)
	if _, err := stub(s.StubPKCS10Request); err != nil {
		errs = append(errs, field.Invalid(at.Child("stubPKCS10Request"), "<binary data>", err.Error()))
	}
	notes := at.Child("unverifiedUserAnnotations")
	errs = append(errs, validation.ValidateAnnotations(s.UnverifiedUserAnnotations, notes)...)
	for k := range s.UnverifiedUserAnnotations {
		if !strings.Contains(k, "/") {
			errs = append(errs, field.Invalid(notes, k, "keys must be domain-prefixed"))
		}
	}
	return errs
}

func checkLife(s *certificatesv1.PodCertificateRequestSpec, at *field.Path) field.ErrorList {
	if s.MaxExpirationSeconds == nil {
		return field.ErrorList{field.Required(at, "must be set")}
	}
	most := int32(maxPodSeconds)
	if strings.HasPrefix(s.SignerName, "kubernetes.io/") {
		most = maxOwnSeconds
	}
	if n := *s.MaxExpirationSeconds; n < minPodSeconds || n > most {
		return field.ErrorList{field.Invalid(at, n, fmt.Sprintf("must be in the range [%d, %d]", minPodSeconds, most))}
	}
	return nil
}

// stub reads the key that a certificate is asked for, which its owner showed to hold.
func stub(der []byte) (crypto.PublicKey, error) {
	r, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, fmt.Errorf("must be a valid PKCS#10 request: %w", err)
	}
	if err := r.CheckSignature(); err != nil {
		return nil, fmt.Errorf("its signature does not verify: %w", err)
	}
	switch k := r.PublicKey.(type) {
	case ed25519.PublicKey:
		return k, nil
	case *ecdsa.PublicKey:
		if slices.Contains([]elliptic.Curve{elliptic.P256(), elliptic.P384(), elliptic.P521()}, k.Curve) {
			return k, nil
		}
		return nil, fmt.Errorf("elliptic public keys must use curve P256, P384 or P521, not %s", k.Params().Name)
	case *rsa.PublicKey:
		if n := k.N.BitLen(); n != 3072 && n != 4096 {
			return nil, fmt.Errorf("RSA keys must have modulus size 3072 or 4096, not %d", n)
		}
		return k, nil
	default:
		return nil, fmt.Errorf("unknown public key type %T; supported types are Ed25519, ECDSA and RSA", k)
	}
}

// checkPodAnswer answers what is wrong with a write to the status: one end, once, and a certificate that is what was asked for.
func checkPodAnswer(op *kind.Op, r, old *certificatesv1.PodCertificateRequest) field.ErrorList {
	errs := checkPodRequest(op, r, old)
	status := field.NewPath("status")
	at := status.Child("conditions")
	errs = append(errs, metavalidation.ValidateConditions(r.Status.Conditions, at)...)
	end := ""
	for i, c := range r.Status.Conditions {
		if !final(c.Type) {
			continue
		}
		if end != "" {
			errs = append(errs, field.Invalid(at.Index(i).Child("type"), c.Type, `There may be at most one condition with type "Issued", "Denied", or "Failed"`))
		}
		end = c.Type
		if c.Status != metav1.ConditionTrue {
			errs = append(errs, field.NotSupported(at.Index(i).Child("status"), c.Status, []metav1.ConditionStatus{metav1.ConditionTrue}))
		}
	}
	if was := state(old); was != "Pending" && !equality.Semantic.DeepEqual(r.Status, old.Status) {
		return append(errs, field.Forbidden(status, fmt.Sprintf("the request is %s: its status is immutable", was)))
	}
	if end == certificatesv1.PodCertificateRequestConditionTypeIssued {
		return append(errs, checkIssued(r, status)...)
	}
	for name, set := range map[string]bool{"certificateChain": r.Status.CertificateChain != "", "notBefore": r.Status.NotBefore != nil, "notAfter": r.Status.NotAfter != nil, "beginRefreshAt": r.Status.BeginRefreshAt != nil} {
		if set {
			errs = append(errs, field.Forbidden(status.Child(name), `may only be set together with a condition of type "Issued"`))
		}
	}
	return errs
}

// checkIssued holds a certificate to the key and the life that were asked for, and the times beside it to its own.
func checkIssued(r *certificatesv1.PodCertificateRequest, at *field.Path) field.ErrorList {
	s, chain := &r.Status, at.Child("certificateChain")
	if s.NotBefore == nil || s.NotAfter == nil || s.BeginRefreshAt == nil {
		return field.ErrorList{field.Required(at, "notBefore, notAfter and beginRefreshAt must be set with a certificate")}
	}
	if len(s.CertificateChain) > maxChain {
		return field.ErrorList{field.TooLong(chain, "", maxChain)}
	}
	if err := certificatesOnly([]byte(s.CertificateChain)); err != nil {
		return field.ErrorList{field.Invalid(chain, "<certificate data>", err.Error())}
	}
	block, _ := pem.Decode([]byte(s.CertificateChain))
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return field.ErrorList{field.Invalid(chain, "<certificate data>", err.Error())}
	}
	var errs field.ErrorList
	key, err := stub(r.Spec.StubPKCS10Request)
	if own, ok := leaf.PublicKey.(interface{ Equal(crypto.PublicKey) bool }); err != nil || !ok || !own.Equal(key) {
		errs = append(errs, field.Invalid(chain, "<certificate data>", "leaf certificate was not issued to the requested public key"))
	}
	if !s.NotBefore.Time.Equal(leaf.NotBefore) {
		errs = append(errs, field.Invalid(at.Child("notBefore"), s.NotBefore, "must be set to the NotBefore time encoded in the leaf certificate"))
	}
	if !s.NotAfter.Time.Equal(leaf.NotAfter) {
		errs = append(errs, field.Invalid(at.Child("notAfter"), s.NotAfter, "must be set to the NotAfter time encoded in the leaf certificate"))
	}
	life, most := leaf.NotAfter.Sub(leaf.NotBefore), time.Duration(*r.Spec.MaxExpirationSeconds)*time.Second
	if life < minPodSeconds*time.Second || life > most {
		errs = append(errs, field.Invalid(chain, "<certificate data>", fmt.Sprintf("leaf certificate lifetime must be >= 1 hour and <= %s, the requested maximum", most)))
	}
	if t := s.BeginRefreshAt.Time; t.Before(s.NotBefore.Add(refreshDistance)) || t.After(s.NotAfter.Add(-refreshDistance)) {
		errs = append(errs, field.Invalid(at.Child("beginRefreshAt"), s.BeginRefreshAt, "must be at least 10 minutes after notBefore and at least 10 minutes before notAfter"))
	}
	return errs
}
