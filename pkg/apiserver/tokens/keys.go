package tokens

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"hash"
	"log/slog"
	"os"

	jose "github.com/go-jose/go-jose/v4"
)

// ring is the keys as their files had them at one moment.
type ring struct {
	sum    [sha256.Size]byte // of the files
	signer jose.Signer       // nil = no tokens are issued
	keys   map[string]crypto.PublicKey
	set    jose.JSONWebKeySet
	hidden map[string]bool // keys that are not in set
}

// readRing reads the keys that a configuration names.
func readRing(c Config) (*ring, error) {
	r := &ring{keys: map[string]crypto.PublicKey{}}
	sum := sha256.New()
	if c.SigningKey != "" {
		keys, err := readKeys(c.SigningKey, sum)
		if err != nil {
			return nil, fmt.Errorf("reading --service-account-signing-key-file: %w", err)
		}
		private, ok := keys[0].(crypto.Signer)
		if !ok {
			return nil, fmt.Errorf("--service-account-signing-key-file %s holds no private key", c.SigningKey)
		}
		alg, err := algorithm(private.Public())
		if err != nil {
			return nil, err
		}
		id, err := keyID(private.Public())
		if err != nil {
			return nil, err
		}
		r.signer, err = jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: jose.JSONWebKey{Key: private, KeyID: id}}, nil)
		if err != nil {
			return nil, fmt.Errorf("making a signer: %w", err)
		}
		if err := r.add(private.Public()); err != nil {
			return nil, err
		}
	}
	for _, f := range c.KeyFiles {
		keys, err := readKeys(f, sum)
		if err != nil {
			return nil, fmt.Errorf("reading --service-account-key-file: %w", err)
		}
		for _, k := range keys {
			public := k
			if s, ok := k.(crypto.Signer); ok {
				public = s.Public()
			}
			if err := r.add(public); err != nil {
				return nil, err
			}
		}
	}
	sum.Sum(r.sum[:0])
	return r, nil
}

func (r *ring) add(public crypto.PublicKey) error {
	id, err := keyID(public)
	if err != nil {
		return err
	}
	if _, ok := r.keys[id]; ok {
		return nil
	}
	alg, err := algorithm(public)
	if err != nil {
		return err
	}
	r.keys[id] = public
	r.set.Keys = append(r.set.Keys, jose.JSONWebKey{Key: public, KeyID: id, Algorithm: string(alg), Use: "sig"})
	return nil
}

// Reread takes the keys over if their files changed, and tells whether it did, or Run since it was asked last. Wrong ones are told of and change nothing.
func (a *Authority) Reread() bool {
	if a == nil {
		return false
	}
	if a.external != nil {
		return a.external.changed.Swap(false)
	}
	now, err := readRing(a.c)
	if err != nil {
		slog.Error("the keys of service account tokens cannot be reread, going on with the old ones", "err", err)
		return false
	}
	if now.sum == a.now.Load().sum {
		return false
	}
	a.now.Store(now)
	slog.Info("the keys of service account tokens were taken over", "keys", len(now.keys))
	return true
}

// keyID names a key by its content, so that every server names it alike.
func keyID(public crypto.PublicKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return "", fmt.Errorf("naming a key: %w", err)
	}
	sum := sha256.Sum256(der)
	return base64.RawURLEncoding.EncodeToString(sum[:]), nil
}

func algorithm(public crypto.PublicKey) (jose.SignatureAlgorithm, error) {
	switch k := public.(type) {
	case *rsa.PublicKey:
		return jose.RS256, nil
	case *ecdsa.PublicKey:
		switch k.Curve.Params().BitSize {
		case 256:
			return jose.ES256, nil
		case 384:
			return jose.ES384, nil
		case 521:
			return jose.ES512, nil
		}
	}
	return "", fmt.Errorf("a %T cannot sign tokens: use RSA, or ECDSA with P-256, P-384 or P-521", public)
}

// readKeys reads the keys of a file and adds its content to sum.
func readKeys(file string, sum hash.Hash) ([]any, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	_, _ = fmt.Fprintf(sum, "%d ", len(data))
	_, _ = sum.Write(data) // a hash takes everything
	var keys []any
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		k, err := parseKey(block)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		if k != nil {
			keys = append(keys, k)
		}
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("%s holds no key in PEM form", file)
	}
	return keys, nil
}

func parseKey(b *pem.Block) (any, error) {
	switch b.Type {
	case "RSA PRIVATE KEY":
		return x509.ParsePKCS1PrivateKey(b.Bytes)
	case "EC PRIVATE KEY":
		return x509.ParseECPrivateKey(b.Bytes)
	case "PRIVATE KEY":
		return x509.ParsePKCS8PrivateKey(b.Bytes)
	case "PUBLIC KEY":
		return x509.ParsePKIXPublicKey(b.Bytes)
	case "RSA PUBLIC KEY":
		return x509.ParsePKCS1PublicKey(b.Bytes)
	case "CERTIFICATE":
		c, err := x509.ParseCertificate(b.Bytes)
		if err != nil {
			return nil, err
		}
		return c.PublicKey, nil
	}
	return nil, nil
}
