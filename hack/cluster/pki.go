package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// authority signs the certificates of one cluster; all of it lies in a folder.
type authority struct {
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// newAuthority reads the authority of the folder, or makes it, so that a second `up` keeps what the first one issued.
func newAuthority(dir string) (*authority, error) { return newAuthorityNamed(dir, "ca") }

// newAuthorityNamed is for a folder with several authorities.
func newAuthorityNamed(dir, name string) (*authority, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	a := &authority{dir: dir}
	if cert, err := os.ReadFile(a.path(name + ".crt")); err == nil {
		key, err := os.ReadFile(a.path(name + ".key"))
		if err != nil {
			return nil, err
		}
		c, k := block(cert), block(key)
		if a.cert, err = x509.ParseCertificate(c); err != nil {
			return nil, err
		}
		a.key, err = x509.ParseECPrivateKey(k)
		return a, err
	}
	a.cert = &x509.Certificate{
		Subject: pkix.Name{CommonName: "sextant"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	return a, a.issue(name, a.cert)
}

func block(data []byte) []byte {
	if b, _ := pem.Decode(data); b != nil {
		return b.Bytes
	}
	return nil
}

func (a *authority) path(name string) string { return filepath.Join(a.dir, name) }

// issue writes <name>.crt and <name>.key, unless they stand already. The first one signs itself and becomes the authority.
func (a *authority) issue(name string, c *x509.Certificate) error {
	if _, err := os.Stat(a.path(name + ".crt")); err == nil {
		return nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	if c.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120)); err != nil {
		return err
	}
	c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().AddDate(1, 0, 0)
	parent, signer := a.cert, a.key
	if signer == nil {
		signer = key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, signer)
	if err != nil {
		return err
	}
	if a.key == nil {
		a.key = key
		if a.cert, err = x509.ParseCertificate(der); err != nil {
			return err
		}
	}
	private, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	if err := os.WriteFile(a.path(name+".key"), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: private}), 0o600); err != nil {
		return err
	}
	return os.WriteFile(a.path(name+".crt"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644)
}

// leaf is a certificate for both ends of a connection.
func leaf(user string, groups, names []string, ips ...string) *x509.Certificate {
	c := &x509.Certificate{
		Subject: pkix.Name{CommonName: user, Organization: groups}, DNSNames: names, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	for _, ip := range ips {
		c.IPAddresses = append(c.IPAddresses, net.ParseIP(ip))
	}
	return c
}

// kubeconfig issues a client certificate and writes the file that holds it.
func (a *authority) kubeconfig(file, name, server, user string, groups ...string) error {
	if err := a.issue(name, leaf(user, groups, nil)); err != nil {
		return err
	}
	root := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
	cert, err := os.ReadFile(a.path(name + ".crt"))
	if err != nil {
		return err
	}
	key, err := os.ReadFile(a.path(name + ".key"))
	if err != nil {
		return err
	}
	text := base64.StdEncoding.EncodeToString
	return os.WriteFile(file, fmt.Appendf(nil, `apiVersion: v1
kind: Config
current-context: sextant
clusters: [{name: sextant, cluster: {server: %q, certificate-authority-data: %s}}]
users: [{name: %q, user: {client-certificate-data: %s, client-key-data: %s}}]
contexts: [{name: sextant, context: {cluster: sextant, user: %q}}]
`, server, text(root), user, text(cert), text(key), user), 0o600)
}
