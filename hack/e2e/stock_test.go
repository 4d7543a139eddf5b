//go:build e2e

package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestStock runs programs of others as they were published, each with what its own users do first. Their images are on
// every node; their manifests lie in $STOCK.
func TestStock(t *testing.T) {
	if err := importStock(); err != nil {
		t.Fatal(err)
	}
	// One after another: while an aggregated server is away, no namespace can be emptied.
	for _, f := range found(t, "testdata/stock/*.txtar") {
		t.Run("alone", func(t *testing.T) { scripts(t, kubectl, f) })
	}
}

// importStock gives every node the images of _out/stock.
func importStock() error {
	images, err := filepath.Glob(filepath.Join(root, "_out/stock/images/*.tar"))
	if err != nil || len(images) == 0 {
		return fmt.Errorf("no images in _out/stock, which make stock-images fills: %v", err)
	}
	nodes, err := filepath.Glob(filepath.Join(root, "_out/nodes/*/containerd.sock"))
	if err != nil || len(nodes) == 0 {
		return fmt.Errorf("no nodes in _out, which make up starts: %v", err)
	}
	for _, socket := range nodes {
		for _, image := range images {
			args := []string{filepath.Join(root, "_out/tools/bin/ctr"), "-a", socket, "-n", "k8s.io", "images", "import", image}
			if text, err := command(commandLimit, args...).CombinedOutput(); err != nil {
				return fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, text)
			}
		}
	}
	return nil
}

// certificate writes tls.crt, which signs itself, and tls.key for a server of that name, and sets CA to what trusts it:
//
//	certificate webhook.default.svc
func certificate(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 1 || neg {
		ts.Fatalf("usage: certificate name")
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ts.Check(err)
	private, err := x509.MarshalECPrivateKey(key)
	ts.Check(err)
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: args, NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	ts.Check(err)
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	ts.Check(os.WriteFile(ts.MkAbs("tls.crt"), cert, 0o600))
	ts.Check(os.WriteFile(ts.MkAbs("tls.key"), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: private}), 0o600))
	ts.Setenv("CA", base64.StdEncoding.EncodeToString(cert))
}
