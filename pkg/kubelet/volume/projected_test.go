package volume

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	certv1 "k8s.io/api/certificates/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// world has trust bundles and a signer which waits to be told.
type world struct {
	Objects
	bundles []certv1.ClusterTrustBundle
	asked   []*certv1.PodCertificateRequest
	// status answers the newest request.
	status certv1.PodCertificateRequestStatus
}

func (w *world) TrustBundle(_ context.Context, name string) (*certv1.ClusterTrustBundle, error) {
	for i := range w.bundles {
		if w.bundles[i].Name == name {
			return &w.bundles[i], nil
		}
	}
	return nil, apierrors.NewNotFound(certv1.Resource("clustertrustbundles"), name)
}

func (w *world) TrustBundles(context.Context, string) ([]certv1.ClusterTrustBundle, error) {
	return w.bundles, nil
}

func (w *world) ServiceAccount(_ context.Context, ns, name string) (*v1.ServiceAccount, error) {
	return &v1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name, UID: "sa"}}, nil
}

func (w *world) RequestCertificate(_ context.Context, r *certv1.PodCertificateRequest) (*certv1.PodCertificateRequest, error) {
	r = r.DeepCopy()
	r.Name = r.GenerateName + string(rune('a'+len(w.asked)))
	w.asked, w.status = append(w.asked, r), certv1.PodCertificateRequestStatus{}
	return r, nil
}

func (w *world) CertificateRequest(_ context.Context, _, name string) (*certv1.PodCertificateRequest, error) {
	r := w.asked[len(w.asked)-1].DeepCopy()
	if r.Name != name {
		return nil, apierrors.NewNotFound(certv1.Resource("podcertificaterequests"), name)
	}
	r.Status = w.status
	return r, nil
}

func pemOf(text string) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte(text)}))
}

func TestTrust(t *testing.T) {
	bundle := func(name, signer, color, text string) certv1.ClusterTrustBundle {
		return certv1.ClusterTrustBundle{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"color": color}}, Spec: certv1.ClusterTrustBundleSpec{SignerName: signer, TrustBundle: text}}
	}
	w := &world{bundles: []certv1.ClusterTrustBundle{bundle("plain", "", "", "a remark\n"+pemOf("two")+pemOf("one")), bundle("s:a", "x/s", "red", pemOf("three")+pemOf("one")),
		bundle("s:b", "x/s", "blue", pemOf("one")), bundle("o:c", "x/o", "red", pemOf("other"))}}
	m := &Manager{cfg: Config{Objects: w}}
	str := func(s string) *string { return &s }
	yes := true
	for _, c := range []struct {
		p    v1.ClusterTrustBundleProjection
		want string
		bad  string
	}{
		{v1.ClusterTrustBundleProjection{Name: str("plain")}, pemOf("one") + pemOf("two"), ""},
		{v1.ClusterTrustBundleProjection{Name: str("none")}, "", "reading ClusterTrustBundle none"},
		{v1.ClusterTrustBundleProjection{Name: str("none"), Optional: &yes}, "", ""},
		{v1.ClusterTrustBundleProjection{SignerName: str("x/s"), LabelSelector: &metav1.LabelSelector{}}, pemOf("one") + pemOf("three"), ""},
		{v1.ClusterTrustBundleProjection{SignerName: str("x/s"), LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"color": "blue"}}}, pemOf("one"), ""},
		{v1.ClusterTrustBundleProjection{SignerName: str("x/s")}, "", "no ClusterTrustBundle of x/s is selected"},
		{v1.ClusterTrustBundleProjection{SignerName: str("x/s"), Optional: &yes}, "", ""},
		{v1.ClusterTrustBundleProjection{}, "", "neither"},
	} {
		got, err := m.trust(t.Context(), &c.p)
		if string(got) != c.want || (err == nil) != (c.bad == "") || err != nil && !strings.Contains(err.Error(), c.bad) {
			t.Errorf("%v: %s %v", c.p, got, err)
		}
	}
}

func TestPodCertificate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{}
		m := &Manager{cfg: Config{Objects: w, Node: func() (string, types.UID) { return "n1", "node" }}, identities: map[string]*identity{}}
		pod := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "p", UID: "u"}}
		most := int32(7200)
		p := &v1.PodCertificateProjection{SignerName: "x/s", KeyType: "ED25519", MaxExpirationSeconds: &most, CredentialBundlePath: "bundle", KeyPath: "key", CertificateChainPath: "chain", UserAnnotations: map[string]string{"x/y": "z"}}
		get := func() (files, error) { return m.podCertificate(t.Context(), pod, "v", 0, p, 0o600) }
		issue := func(text string) {
			now := time.Now()
			at := func(d time.Duration) *metav1.Time { x := metav1.NewTime(now.Add(d)); return &x }
			w.status = certv1.PodCertificateRequestStatus{Conditions: []metav1.Condition{{Type: "Issued", Status: "True"}}, CertificateChain: "remark\n" + pemOf(text),
				NotBefore: at(0), BeginRefreshAt: at(time.Hour), NotAfter: at(2 * time.Hour)}
		}
		begin := time.Now()
		if _, err := get(); !errors.Is(err, errPending) || time.Since(begin) > 2*signerPatience || len(w.asked) != 1 {
			t.Fatal(err, time.Since(begin), len(w.asked))
		}
		r := w.asked[0]
		csr, err := x509.ParseCertificateRequest(r.Spec.StubPKCS10Request)
		if err != nil || csr.CheckSignature() != nil || csr.Subject.String() != "" {
			t.Error(csr, err)
		}
		if s := r.Spec; r.Namespace != "n" || s.PodName != "p" || s.PodUID != "u" || s.ServiceAccountName != "default" || s.ServiceAccountUID != "sa" || s.NodeName != "n1" || s.NodeUID != "node" || *s.MaxExpirationSeconds != 7200 || s.UnverifiedUserAnnotations["x/y"] != "z" {
			t.Errorf("%+v", s)
		}
		issue("first")
		got, err := get()
		if err != nil || string(got["chain"].data) != pemOf("first") || string(got["bundle"].data) != string(got["key"].data)+pemOf("first") || got["key"].mode != 0o600 || len(w.asked) != 1 {
			t.Fatal(got, err, len(w.asked))
		}
		block, _ := pem.Decode(got["key"].data)
		key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		if err != nil || !key.(ed25519.PrivateKey).Public().(ed25519.PublicKey).Equal(csr.PublicKey) {
			t.Error("the key is not the certificate's", err)
		}
		// It gets old: what holds is shown until the next is there, and a signer that refuses is asked again later.
		time.Sleep(time.Hour)
		for range 3 {
			if again, err := get(); err != nil || string(again["bundle"].data) != string(got["bundle"].data) || len(w.asked) != 2 {
				t.Fatal(err, len(w.asked))
			}
		}
		w.status.Conditions = []metav1.Condition{{Type: "Denied", Reason: "No", Message: "not today"}}
		for range 3 {
			if _, err := get(); err != nil || len(w.asked) != 2 {
				t.Fatal(err, len(w.asked))
			}
		}
		time.Sleep(2 * signerAgain)
		if _, err := get(); err != nil || len(w.asked) != 3 {
			t.Fatal(err, len(w.asked))
		}
		issue("second")
		if again, err := get(); err != nil || string(again["chain"].data) != pemOf("second") || string(again["key"].data) == string(got["key"].data) {
			t.Fatal(again, err)
		}
		time.Sleep(90 * time.Minute)
		_, _ = get()
		w.status.Conditions = []metav1.Condition{{Type: "Failed", Reason: "No", Message: "broken"}}
		time.Sleep(time.Hour)
		if _, err := get(); err == nil || !strings.Contains(err.Error(), "is failed: No: broken") {
			t.Error("an expired certificate is shown:", err)
		}
	})
}

func TestKeys(t *testing.T) {
	for _, kind := range []string{"RSA3072", "ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519"} {
		key, err := newKey(kind)
		if err != nil {
			t.Fatal(kind, err)
		}
		if _, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(1)}, &x509.Certificate{SerialNumber: big.NewInt(1)}, key.Public(), key); err != nil {
			t.Error(kind, err)
		}
	}
	if _, err := newKey("DSA"); err == nil {
		t.Error("a key of an unknown type is made")
	}
}
