// Package tokens issues and verifies service account tokens, and publishes the keys to verify them by.
//
// The flow: Issue signs claims that bind a token to a service account and, if asked, to a pod, node or secret; Verify
// checks signature, issuer, audience and time, then that what the token is bound to still lives. Keys are read once, at
// start; an Authority is shared by all requests and never changes.
package tokens

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"time"

	jose "github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// Config says who issues and by which keys.
type Config struct {
	Issuers    []string // the first issues, all are accepted
	SigningKey string   // file with the private key; "" = no tokens are issued
	KeyFiles   []string // files with further keys to verify by
	Audiences  []string // by which tokens name this server; empty = the issuers
	// MaxLife bounds what a token may ask for; 0 = unbounded.
	MaxLife time.Duration
	// Strict gives the tokens of pods the life they ask for, not a year for the sake of old programs.
	Strict bool
}

// Authority issues and verifies.
type Authority struct {
	issuers   []string
	audiences []string
	maxLife   time.Duration
	strict    bool
	signer    jose.Signer
	keys      map[string]crypto.PublicKey // by key id
	set       jose.JSONWebKeySet
}

// New reads the keys.
func New(c Config) (*Authority, error) {
	a := &Authority{issuers: c.Issuers, audiences: c.Audiences, maxLife: c.MaxLife, strict: c.Strict, keys: map[string]crypto.PublicKey{}}
	if len(a.audiences) == 0 {
		a.audiences = c.Issuers
	}
	if c.SigningKey != "" {
		keys, err := readKeys(c.SigningKey)
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
		a.signer, err = jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: jose.JSONWebKey{Key: private, KeyID: id}}, nil)
		if err != nil {
			return nil, fmt.Errorf("making a signer: %w", err)
		}
		if err := a.add(private.Public()); err != nil {
			return nil, err
		}
	}
	for _, f := range c.KeyFiles {
		keys, err := readKeys(f)
		if err != nil {
			return nil, fmt.Errorf("reading --service-account-key-file: %w", err)
		}
		for _, k := range keys {
			public := k
			if s, ok := k.(crypto.Signer); ok {
				public = s.Public()
			}
			if err := a.add(public); err != nil {
				return nil, err
			}
		}
	}
	return a, nil
}

func (a *Authority) add(public crypto.PublicKey) error {
	id, err := keyID(public)
	if err != nil {
		return err
	}
	if _, ok := a.keys[id]; ok {
		return nil
	}
	alg, err := algorithm(public)
	if err != nil {
		return err
	}
	a.keys[id] = public
	a.set.Keys = append(a.set.Keys, jose.JSONWebKey{Key: public, KeyID: id, Algorithm: string(alg), Use: "sig"})
	return nil
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

func readKeys(file string) ([]any, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
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

// Issues tells whether tokens can be issued.
func (a *Authority) Issues() bool { return a != nil && a.signer != nil }

// Keys are the public keys, as /openid/v1/jwks publishes them.
func (a *Authority) Keys() jose.JSONWebKeySet { return a.set }

// Issuer is the name under which tokens are issued.
func (a *Authority) Issuer() string {
	if len(a.issuers) == 0 {
		return ""
	}
	return a.issuers[0]
}

// Issuers are the names under which tokens were or are issued.
func (a *Authority) Issuers() []string {
	if a == nil {
		return nil
	}
	return a.issuers
}

// Audiences are the names of this server.
func (a *Authority) Audiences() []string { return a.audiences }

// Ref names an object that a token is bound to.
type Ref struct {
	Name string `json:"name,omitempty"`
	UID  string `json:"uid,omitempty"`
}

// Bound is what a token says of its service account, under "kubernetes.io".
type Bound struct {
	Namespace      string           `json:"namespace,omitempty"`
	Node           *Ref             `json:"node,omitempty"`
	Pod            *Ref             `json:"pod,omitempty"`
	Secret         *Ref             `json:"secret,omitempty"`
	ServiceAccount Ref              `json:"serviceaccount,omitzero"`
	WarnAfter      *jwt.NumericDate `json:"warnafter,omitempty"`
}

// Claims are what a token says.
type Claims struct {
	jwt.Claims
	Bound Bound `json:"kubernetes.io,omitzero"`
}

// Sign makes a token of claims.
func (a *Authority) Sign(c *Claims) (string, error) {
	if a.signer == nil {
		return "", errors.New("this server issues no tokens: it was started without --service-account-signing-key-file")
	}
	c.Issuer = a.Issuer()
	return jwt.Signed(a.signer).Claims(c).Serialize()
}

// errNotOurs says that a token is of another kind or issuer: somebody else may know it.
var errNotOurs = errors.New("not a token of this server")

// parse reads a token and checks its signature, issuer and times.
func (a *Authority) parse(token string) (*Claims, error) {
	t, err := jwt.ParseSigned(token, []jose.SignatureAlgorithm{jose.RS256, jose.ES256, jose.ES384, jose.ES512})
	if err != nil {
		return nil, errNotOurs
	}
	unsafe := &Claims{}
	if err := t.UnsafeClaimsWithoutVerification(unsafe); err != nil || !a.accepts(unsafe.Issuer) {
		return nil, errNotOurs
	}
	c := &Claims{}
	if id := t.Headers[0].KeyID; id != "" {
		key, ok := a.keys[id]
		if !ok {
			return nil, errors.New("the token was signed by a key this server does not know")
		}
		if err := t.Claims(key, c); err != nil {
			return nil, errors.New("the token's signature is wrong")
		}
		return c, nil
	}
	for _, key := range a.keys {
		if t.Claims(key, c) == nil {
			return c, nil
		}
	}
	return nil, errors.New("the token's signature is wrong")
}

func (a *Authority) accepts(issuer string) bool {
	for _, i := range a.issuers {
		if i == issuer {
			return true
		}
	}
	return false
}
