package volume

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	certv1 "k8s.io/api/certificates/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

const (
	// signerPatience is how long a first start waits within one try for the signer; later tries go on where it stopped.
	signerPatience = 3 * time.Second
	signerGlance   = 100 * time.Millisecond
	// signerAgain is the pause after a signer refused.
	signerAgain = time.Minute
)

// identity is one certificate of a pod, and the request for the next.
type identity struct {
	// mu is held over one look.
	mu sync.Mutex
	// chain and key are PEM; renew is when to ask for others.
	chain, key     []byte
	renew, expires time.Time
	// request names what is asked for, nextKey is its key.
	request string
	nextKey []byte
	// refused is why the last request came to nothing, and until is when to ask anew.
	refused error
	until   time.Time
}

// podCertificate is a key and a certificate for the pod from a signer: files by what the projection asks for.
func (m *Manager) podCertificate(ctx context.Context, pod *v1.Pod, volume string, index int, p *v1.PodCertificateProjection, fm int32) (files, error) {
	name := fmt.Sprintf("%s/%s/%d", pod.UID, volume, index)
	m.mu.Lock()
	id := m.identities[name]
	if id == nil {
		id = &identity{}
		m.identities[name] = id
	}
	m.mu.Unlock()
	id.mu.Lock()
	defer id.mu.Unlock()
	for deadline := time.Now().Add(signerPatience); ; {
		err := m.certify(ctx, pod, p, id)
		if id.chain != nil {
			// A certificate that holds is better than none, whatever becomes of the next.
			if err == nil || time.Now().Before(id.expires) {
				break
			}
		}
		if !errors.Is(err, errPending) || time.Now().After(deadline) {
			return nil, fmt.Errorf("the pod's certificate of %s: %w", p.SignerName, err)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(signerGlance):
		}
	}
	out := files{}
	if p.CredentialBundlePath != "" {
		out[p.CredentialBundlePath] = file{bytes.Join([][]byte{id.key, id.chain}, nil), fm}
	}
	if p.KeyPath != "" {
		out[p.KeyPath] = file{id.key, fm}
	}
	if p.CertificateChainPath != "" {
		out[p.CertificateChainPath] = file{id.chain, fm}
	}
	return out, nil
}

var errPending = errors.New("it has not been issued yet")

// certify takes one step: ask when there is nothing or it gets old, else look whether it was issued. nil means that id
// holds a certificate which need not be renewed.
func (m *Manager) certify(ctx context.Context, pod *v1.Pod, p *v1.PodCertificateProjection, id *identity) error {
	now := time.Now()
	if id.chain != nil && now.Before(id.renew) {
		return nil
	}
	if id.request == "" {
		if id.refused != nil && now.Before(id.until) {
			return id.refused
		}
		return m.ask(ctx, pod, p, id)
	}
	r, err := m.cfg.Objects.CertificateRequest(ctx, pod.Namespace, id.request)
	if apierrors.IsNotFound(err) {
		// Somebody cleaned it up unanswered.
		id.request = ""
		return errPending
	}
	if err != nil {
		return err
	}
	for _, c := range r.Status.Conditions {
		switch c.Type {
		case certv1.PodCertificateRequestConditionTypeIssued:
			return id.take(r)
		case certv1.PodCertificateRequestConditionTypeDenied, certv1.PodCertificateRequestConditionTypeFailed:
			id.request, id.until = "", now.Add(signerAgain)
			id.refused = fmt.Errorf("request %s is %s: %s: %s", r.Name, strings.ToLower(c.Type), c.Reason, c.Message)
			return id.refused
		}
	}
	return errPending
}

// take makes what was issued the certificate to show.
func (id *identity) take(r *certv1.PodCertificateRequest) error {
	var chain bytes.Buffer
	for rest := []byte(r.Status.CertificateChain); ; {
		var b *pem.Block
		if b, rest = pem.Decode(rest); b == nil {
			break
		}
		chain.Write(pem.EncodeToMemory(&pem.Block{Type: b.Type, Bytes: b.Bytes}))
	}
	st := r.Status
	if chain.Len() == 0 || st.NotBefore == nil || st.NotAfter == nil {
		id.request, id.until = "", time.Now().Add(signerAgain)
		id.refused = fmt.Errorf("request %s is issued and has no certificate", r.Name)
		return id.refused
	}
	id.chain, id.key, id.request, id.refused = chain.Bytes(), id.nextKey, "", nil
	id.expires = st.NotAfter.Time
	id.renew = st.NotBefore.Add(st.NotAfter.Sub(st.NotBefore.Time) * 4 / 5)
	if st.BeginRefreshAt != nil {
		id.renew = st.BeginRefreshAt.Time
	}
	return nil
}

// ask makes a key and requests a certificate for it.
func (m *Manager) ask(ctx context.Context, pod *v1.Pod, p *v1.PodCertificateProjection, id *identity) error {
	key, err := newKey(p.KeyType)
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	// The request says nothing of the pod: the server knows the pod better than its node does.
	stub, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return err
	}
	account := pod.Spec.ServiceAccountName
	if account == "" {
		account = "default"
	}
	sa, err := m.cfg.Objects.ServiceAccount(ctx, pod.Namespace, account)
	if err != nil {
		return fmt.Errorf("reading service account %s/%s: %w", pod.Namespace, account, err)
	}
	node, uid := m.cfg.Node()
	if uid == "" {
		return errPending // the node has not registered
	}
	r, err := m.cfg.Objects.RequestCertificate(ctx, &certv1.PodCertificateRequest{
		ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, GenerateName: "req-" + pod.Name + "-",
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID}}},
		Spec: certv1.PodCertificateRequestSpec{SignerName: p.SignerName, PodName: pod.Name, PodUID: pod.UID, ServiceAccountName: account, ServiceAccountUID: sa.UID,
			NodeName: types.NodeName(node), NodeUID: uid, MaxExpirationSeconds: p.MaxExpirationSeconds, StubPKCS10Request: stub, UnverifiedUserAnnotations: p.UserAnnotations}})
	if err != nil {
		return fmt.Errorf("asking for it: %w", err)
	}
	id.request, id.nextKey = r.Name, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	return errPending
}

func newKey(kind string) (crypto.Signer, error) {
	switch kind {
	case "RSA3072":
		return rsa.GenerateKey(rand.Reader, 3072)
	case "RSA4096":
		return rsa.GenerateKey(rand.Reader, 4096)
	case "ECDSAP256":
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "ECDSAP384":
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "ECDSAP521":
		return ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case "ED25519":
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return key, err
	}
	return nil, fmt.Errorf("keys of type %q are unknown here", kind)
}
