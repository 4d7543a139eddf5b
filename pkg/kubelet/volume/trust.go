package volume

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// trust is the certificates of one bundle, or of all of a signer which the labels select, each once.
func (m *Manager) trust(ctx context.Context, p *v1.ClusterTrustBundleProjection) ([]byte, error) {
	optional := p.Optional != nil && *p.Optional
	var texts []string
	switch {
	case p.Name != nil:
		b, err := m.cfg.Objects.TrustBundle(ctx, *p.Name)
		switch {
		case apierrors.IsNotFound(err) && optional:
		case err != nil:
			return nil, fmt.Errorf("reading ClusterTrustBundle %s: %w", *p.Name, err)
		default:
			texts = append(texts, b.Spec.TrustBundle)
		}
	case p.SignerName != nil:
		selector := labels.Nothing()
		if p.LabelSelector != nil {
			var err error
			if selector, err = metav1.LabelSelectorAsSelector(p.LabelSelector); err != nil {
				return nil, fmt.Errorf("the labelSelector of the trust bundles of %s: %w", *p.SignerName, err)
			}
		}
		all, err := m.cfg.Objects.TrustBundles(ctx, *p.SignerName)
		if err != nil {
			return nil, fmt.Errorf("listing the ClusterTrustBundles of %s: %w", *p.SignerName, err)
		}
		for _, b := range all {
			if b.Spec.SignerName == *p.SignerName && selector.Matches(labels.Set(b.Labels)) {
				texts = append(texts, b.Spec.TrustBundle)
			}
		}
		if len(texts) == 0 && !optional {
			return nil, fmt.Errorf("no ClusterTrustBundle of %s is selected by %s", *p.SignerName, selector)
		}
	default:
		return nil, errors.New("clusterTrustBundle names neither a bundle nor a signer")
	}
	return anchors(texts), nil
}

// anchors are the certificates of all texts in one order, whatever the texts' own, so that only a real change rewrites files.
// What else stands in the texts, comments and headers, is left out.
func anchors(texts []string) []byte {
	var blocks [][]byte
	for _, t := range texts {
		for rest := []byte(t); ; {
			var b *pem.Block
			if b, rest = pem.Decode(rest); b == nil {
				break
			}
			if b.Type == "CERTIFICATE" {
				blocks = append(blocks, b.Bytes)
			}
		}
	}
	slices.SortFunc(blocks, bytes.Compare)
	var out bytes.Buffer
	for _, b := range slices.CompactFunc(blocks, bytes.Equal) {
		out.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: b}))
	}
	return out.Bytes()
}
