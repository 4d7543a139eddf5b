package plugins

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"

	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"github.com/sextant-k8s/sextant/pkg/apiserver/admission"
	"github.com/sextant-k8s/sextant/pkg/apiserver/authz"
)

// CertificateApproval lets only those decide on a request who may approve for its signer.
func CertificateApproval(chain *authz.Chain) admission.Plugin {
	return admission.Plugin{Name: "CertificateApproval", Validate: func(ctx context.Context, r *admission.Request) error {
		_, old := signingRequests(r)
		if old == nil || r.Sub != "approval" || mayAtSigner(ctx, chain, r.User, "approve", old.Spec.SignerName) {
			return nil
		}
		return fmt.Errorf("user not permitted to approve requests with signerName %q", old.Spec.SignerName)
	}}
}

// CertificateSigning lets only those write a certificate, or that there is none, who may sign for the signer.
func CertificateSigning(chain *authz.Chain) admission.Plugin {
	return admission.Plugin{Name: "CertificateSigning", Validate: func(ctx context.Context, r *admission.Request) error {
		if of, ok := r.Old.(*certificatesv1.PodCertificateRequest); ok && r.Verb == admission.Update && r.Sub == "status" {
			if mayAtSigner(ctx, chain, r.User, "sign", of.Spec.SignerName) {
				return nil
			}
			return fmt.Errorf("user not permitted to sign requests with signerName %q", of.Spec.SignerName)
		}
		c, old := signingRequests(r)
		if old == nil || r.Sub != "status" {
			return nil
		}
		if bytes.Equal(c.Status.Certificate, old.Status.Certificate) && equality.Semantic.DeepEqual(c.Status.Conditions, old.Status.Conditions) {
			return nil
		}
		if mayAtSigner(ctx, chain, r.User, "sign", old.Spec.SignerName) {
			return nil
		}
		return fmt.Errorf("user not permitted to sign requests with signerName %q", old.Spec.SignerName)
	}}
}

// ClusterTrustBundleAttest lets only those publish a signer's authorities who may attest for the signer.
func ClusterTrustBundleAttest(chain *authz.Chain) admission.Plugin {
	return admission.Plugin{Name: "ClusterTrustBundleAttest", Validate: func(ctx context.Context, r *admission.Request) error {
		b, ok := r.Object.(*certificatesv1.ClusterTrustBundle)
		if !ok || r.Verb != admission.Create && r.Verb != admission.Update || b.Spec.SignerName == "" {
			return nil
		}
		if old, ok := r.Old.(*certificatesv1.ClusterTrustBundle); ok && equality.Semantic.DeepEqual(old.Spec, b.Spec) {
			return nil // what the collector of garbage does to the metadata attests nothing
		}
		if mayAtSigner(ctx, chain, r.User, "attest", b.Spec.SignerName) {
			return nil
		}
		return fmt.Errorf("user not permitted to attest for signerName %q", b.Spec.SignerName)
	}}
}

// CertificateSubjectRestriction lets nobody ask for a certificate of the cluster's owners.
var CertificateSubjectRestriction = admission.Plugin{Name: "CertificateSubjectRestriction", Validate: func(_ context.Context, r *admission.Request) error {
	c, _ := r.Object.(*certificatesv1.CertificateSigningRequest)
	if c == nil || r.Verb != admission.Create || r.Sub != "" || c.Spec.SignerName != certificatesv1.KubeAPIServerClientSignerName {
		return nil
	}
	block, _ := pem.Decode(c.Spec.Request)
	if block == nil || block.Type != "CERTIFICATE REQUEST" {
		return errors.New("failed to parse CSR: PEM block type must be CERTIFICATE REQUEST")
	}
	asked, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return fmt.Errorf("failed to parse CSR: %w", err)
	}
	if slices.Contains(asked.Subject.Organization, user.SystemPrivilegedGroup) {
		return fmt.Errorf("use of %s signer with %s group is not allowed", c.Spec.SignerName, user.SystemPrivilegedGroup)
	}
	return nil
}}

// signingRequests answers the signing request that a request changes, as it will be and as it is; nil if none.
func signingRequests(r *admission.Request) (c, old *certificatesv1.CertificateSigningRequest) {
	if r.Verb != admission.Update {
		return nil, nil
	}
	c, _ = r.Object.(*certificatesv1.CertificateSigningRequest)
	old, _ = r.Old.(*certificatesv1.CertificateSigningRequest)
	if c == nil || old == nil {
		return nil, nil
	}
	return c, old
}

// mayAtSigner tells whether the user has a verb on the signer, by its name or by its whole domain ("example.com/*").
func mayAtSigner(ctx context.Context, chain *authz.Chain, u user.Info, verb, signer string) bool {
	domain, _, _ := strings.Cut(signer, "/")
	for _, name := range []string{signer, domain + "/*"} {
		d, _, err := chain.Authorize(ctx, authorizer.AttributesRecord{
			User: u, Verb: verb, Name: name, APIGroup: certificatesv1.GroupName, APIVersion: "*", Resource: "signers", ResourceRequest: true,
		})
		if err == nil && d == authorizer.DecisionAllow {
			return true
		}
	}
	return false
}
