package certificates

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/api/validation/path"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

// minSeconds is the shortest life a certificate may be asked for.
const minSeconds = 600

var (
	usages = []string{
		"any", "cert sign", "client auth", "code signing", "content commitment", "crl sign", "data encipherment", "decipher only",
		"digital signature", "email protection", "encipher only", "ipsec end system", "ipsec tunnel", "ipsec user", "key agreement",
		"key encipherment", "microsoft sgc", "netscape sgc", "ocsp signing", "s/mime", "server auth", "signing", "timestamping",
	}
	anyStatus = []corev1.ConditionStatus{corev1.ConditionFalse, corev1.ConditionTrue, corev1.ConditionUnknown}
	yesStatus = []corev1.ConditionStatus{corev1.ConditionTrue}
	decisions = []certificatesv1.RequestConditionType{certificatesv1.CertificateApproved, certificatesv1.CertificateDenied}
)

// check answers what is wrong with a new request; of a changed one only the metadata can be new.
func check(_ *kind.Op, c, old *certificatesv1.CertificateSigningRequest) field.ErrorList {
	errs := validation.ValidateObjectMeta(&c.ObjectMeta, false, path.ValidatePathSegmentName, field.NewPath("metadata"))
	if old != nil {
		return append(errs, validation.ValidateObjectMetaUpdate(&c.ObjectMeta, &old.ObjectMeta, field.NewPath("metadata"))...)
	}
	spec := field.NewPath("spec")
	if err := wellFormed(c.Spec.Request); err != nil {
		errs = append(errs, field.Invalid(spec.Child("request"), c.Spec.Request, fmt.Sprintf("%v", err)))
	}
	if len(c.Spec.Usages) == 0 {
		errs = append(errs, field.Required(spec.Child("usages"), ""))
	}
	for i, u := range c.Spec.Usages {
		if !slices.Contains(usages, string(u)) {
			errs = append(errs, field.NotSupported(spec.Child("usages").Index(i), u, usages))
		}
		if slices.Contains(c.Spec.Usages[:i], u) {
			errs = append(errs, field.Duplicate(spec.Child("usages").Index(i), u))
		}
	}
	errs = append(errs, checkSigner(c.Spec.SignerName, spec.Child("signerName"))...)
	if s := c.Spec.ExpirationSeconds; s != nil && *s < minSeconds {
		errs = append(errs, field.Invalid(spec.Child("expirationSeconds"), *s, "may not specify a duration less than 600 seconds (10 minutes)"))
	}
	return errs
}

// wellFormed tells what keeps bytes from being a signing request whose maker holds its key.
func wellFormed(request []byte) error {
	block, _ := pem.Decode(request)
	if block == nil || block.Type != "CERTIFICATE REQUEST" {
		return errors.New("PEM block type must be CERTIFICATE REQUEST")
	}
	r, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return err
	}
	return r.CheckSignature()
}

// checkSigner holds a signer's name to the form domain/path.
func checkSigner(name string, at *field.Path) field.ErrorList {
	if name == "" {
		return field.ErrorList{field.Required(at, "")}
	}
	domain, rest, ok := strings.Cut(name, "/")
	if !ok || rest == "" || strings.Contains(rest, "/") {
		return field.ErrorList{field.Invalid(at, name, "must be a fully qualified domain and path of the form 'example.com/signer-name'")}
	}
	var errs field.ErrorList
	if name == "kubernetes.io/legacy-unknown" {
		errs = append(errs, field.Invalid(at, name, "the legacy signerName is not allowed via this API version"))
	}
	labels := strings.Split(domain, ".")
	if len(labels) < 2 {
		errs = append(errs, field.Invalid(at, domain, "should be a domain with at least two segments separated by dots"))
	}
	for _, l := range labels {
		for _, m := range utilvalidation.IsDNS1123Label(l) {
			errs = append(errs, field.Invalid(at, domain, fmt.Sprintf("validating label %q: %s", l, m)))
		}
	}
	for _, m := range utilvalidation.IsDNS1123Subdomain(rest) {
		errs = append(errs, field.Invalid(at, rest, fmt.Sprintf("validating label %q: %s", rest, m)))
	}
	return errs
}

// checkChange answers what a write to approval or status may not do: nobody takes a decision back, only approval makes
// one, only status brings a certificate, and none replaces another.
func checkChange(c, old *certificatesv1.CertificateSigningRequest, deciding bool) field.ErrorList {
	errs := check(nil, c, old)
	at := field.NewPath("status", "conditions")
	errs = append(errs, checkConditions(c.Status.Conditions, at)...)
	for _, t := range append(slices.Clone(decisions), certificatesv1.CertificateFailed) {
		now, was := ofType(c, t), ofType(old, t)
		switch {
		case len(now) < len(was):
			errs = append(errs, field.Forbidden(at, fmt.Sprintf("updates may not remove a condition of type %q", t)))
		case deciding || t == certificatesv1.CertificateFailed:
		case len(now) > len(was):
			errs = append(errs, field.Forbidden(at, fmt.Sprintf("updates may not add a condition of type %q", t)))
		case !equality.Semantic.DeepEqual(now, was):
			errs = append(errs, field.Forbidden(at, fmt.Sprintf("updates may not modify a condition of type %q", t)))
		}
	}
	if bytes.Equal(c.Status.Certificate, old.Status.Certificate) {
		return errs
	}
	cert := field.NewPath("status", "certificate")
	if len(old.Status.Certificate) > 0 {
		return append(errs, field.Forbidden(cert, "updates may not modify existing certificate content"))
	}
	if err := certificatesOnly(c.Status.Certificate); err != nil {
		errs = append(errs, field.Invalid(cert, "<certificate data>", err.Error()))
	}
	return errs
}

func checkConditions(list []certificatesv1.CertificateSigningRequestCondition, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	seen := map[certificatesv1.RequestConditionType]bool{}
	for i, n := range list {
		if n.Type == "" {
			errs = append(errs, field.Required(at.Index(i).Child("type"), ""))
		}
		allowed := anyStatus
		if n.Type == certificatesv1.CertificateFailed || slices.Contains(decisions, n.Type) {
			allowed = yesStatus
		}
		if n.Status == "" {
			errs = append(errs, field.Required(at.Index(i).Child("status"), ""))
		} else if !slices.Contains(allowed, n.Status) {
			errs = append(errs, field.NotSupported(at.Index(i).Child("status"), n.Status, allowed))
		}
		if seen[n.Type] {
			errs = append(errs, field.Duplicate(at.Index(i).Child("type"), n.Type))
		}
		seen[n.Type] = true
		if slices.Contains(decisions, n.Type) && seen[certificatesv1.CertificateApproved] && seen[certificatesv1.CertificateDenied] {
			errs = append(errs, field.Invalid(at.Index(i).Child("type"), n.Type, "Approved and Denied conditions are mutually exclusive"))
		}
	}
	return errs
}

func ofType(c *certificatesv1.CertificateSigningRequest, t certificatesv1.RequestConditionType) []certificatesv1.CertificateSigningRequestCondition {
	var out []certificatesv1.CertificateSigningRequestCondition
	for _, n := range c.Status.Conditions {
		if n.Type == t {
			out = append(out, n)
		}
	}
	return out
}

// certificatesOnly tells what keeps bytes from being one or more certificates in PEM form.
func certificatesOnly(data []byte) error {
	found := false
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			return fmt.Errorf("only CERTIFICATE PEM blocks are allowed, found %q", block.Type)
		}
		if len(block.Headers) > 0 {
			return errors.New("no PEM block headers are permitted")
		}
		certs, err := x509.ParseCertificates(block.Bytes)
		if err != nil {
			return err
		}
		if len(certs) == 0 {
			return errors.New("found CERTIFICATE PEM block containing 0 certificates")
		}
		found = true
	}
	if !found {
		return errors.New("must contain at least one CERTIFICATE PEM block")
	}
	return nil
}
