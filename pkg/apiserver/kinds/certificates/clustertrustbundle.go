package certificates

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"strings"

	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

// maxBundle is how long a trust bundle may be, in bytes.
const maxBundle = 1 << 20

// ClusterTrustBundle is the row of clustertrustbundles.
func ClusterTrustBundle() *kind.Def {
	return kind.Row(kind.Def{
		Kind: "ClusterTrustBundle", Resource: "clustertrustbundles",
		Check:      kind.Ask(checkBundle),
		FieldNames: []string{"spec.signerName"},
		Fields: kind.Of(func(b *certificatesv1.ClusterTrustBundle) map[string]string {
			return map[string]string{"spec.signerName": b.Spec.SignerName}
		}),
		Columns: kind.Columns("Name SignerName"),
		Row: kind.Of(func(b *certificatesv1.ClusterTrustBundle) []any {
			return []any{b.Name, kind.None(b.Spec.SignerName)}
		}),
	}, kind.In[certificatesv1.ClusterTrustBundle, certificatesv1.ClusterTrustBundleList](certificatesv1.SchemeGroupVersion, nil))
}

// checkBundle answers what is wrong with a bundle: it is named after its signer, and holds authorities only, each once.
func checkBundle(_ *kind.Op, b, old *certificatesv1.ClusterTrustBundle) field.ErrorList {
	errs := validation.ValidateObjectMeta(&b.ObjectMeta, false, bundleName(b.Spec.SignerName), field.NewPath("metadata"))
	spec := field.NewPath("spec")
	if b.Spec.SignerName != "" {
		errs = append(errs, checkSigner(b.Spec.SignerName, spec.Child("signerName"))...)
	}
	if old != nil {
		errs = append(errs, validation.ValidateObjectMetaUpdate(&b.ObjectMeta, &old.ObjectMeta, field.NewPath("metadata"))...)
		errs = append(errs, validation.ValidateImmutableField(b.Spec.SignerName, old.Spec.SignerName, spec.Child("signerName"))...)
		if b.Spec.TrustBundle == old.Spec.TrustBundle {
			return errs
		}
	}
	return append(errs, checkAnchors(b.Spec.TrustBundle, spec.Child("trustBundle"))...)
}

// bundleName holds names to the signer: "example.com/a" has bundles "example.com:a:...", and one of no signer has no colon.
func bundleName(signer string) validation.ValidateNameFunc {
	return func(name string, prefix bool) []string {
		if signer == "" {
			if strings.Contains(name, ":") {
				return []string{`ClusterTrustBundle without signer name must not have ":" in its name`}
			}
			return validation.NameIsDNSSubdomain(name, prefix)
		}
		need := strings.ReplaceAll(signer, "/", ":") + ":"
		rest, ok := strings.CutPrefix(name, need)
		if !ok {
			return []string{fmt.Sprintf("ClusterTrustBundle for signerName %s must be named with prefix %s", signer, need)}
		}
		return validation.NameIsDNSSubdomain(rest, prefix)
	}
}

func checkAnchors(bundle string, at *field.Path) field.ErrorList {
	const shown = "<value omitted>" // it may be a megabyte
	if len(bundle) > maxBundle {
		return field.ErrorList{field.TooLong(at, "", maxBundle)}
	}
	var errs field.ErrorList
	var anchors []*x509.Certificate
	rest := []byte(bundle)
	for i := 0; ; i++ {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			errs = append(errs, field.Invalid(at, shown, fmt.Sprintf("entry %d has bad block type: %v", i, block.Type)))
			continue
		}
		if len(block.Headers) > 0 {
			errs = append(errs, field.Invalid(at, shown, fmt.Sprintf("entry %d has PEM block headers", i)))
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			errs = append(errs, field.Invalid(at, shown, fmt.Sprintf("entry %d does not parse as X.509", i)))
			continue
		}
		if !c.BasicConstraintsValid || !c.IsCA {
			errs = append(errs, field.Invalid(at, shown, fmt.Sprintf("entry %d does not have the CA bit set", i)))
		}
		for j, o := range anchors {
			if bytes.Equal(o.Raw, c.Raw) {
				errs = append(errs, field.Invalid(at, shown, fmt.Sprintf("duplicate trust anchor (indices %d, %d)", j, i)))
			}
		}
		anchors = append(anchors, c)
	}
	if len(anchors) == 0 && len(errs) == 0 {
		errs = append(errs, field.Invalid(at, shown, "at least one trust anchor must be provided"))
	}
	return errs
}
