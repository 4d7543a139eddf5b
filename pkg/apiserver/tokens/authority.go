// Package tokens issues and verifies service account tokens, and publishes the keys to verify them by.
//
// The flow: Issue signs claims that bind a token to a service account and, if asked, to a pod, node or secret; Verify
// checks signature, issuer, audience and time, then that what the token is bound to still lives. An Authority
// is shared by all requests; its keys are a ring that is replaced whole when their files change, which Reread looks after.
package tokens

import (
	"errors"
	"sync/atomic"
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
	c         Config
	issuers   []string
	audiences []string
	maxLife   time.Duration
	strict    bool
	now       atomic.Pointer[ring]
}

// New reads the keys.
func New(c Config) (*Authority, error) {
	a := &Authority{c: c, issuers: c.Issuers, audiences: c.Audiences, maxLife: c.MaxLife, strict: c.Strict}
	if len(a.audiences) == 0 {
		a.audiences = c.Issuers
	}
	now, err := readRing(c)
	if err != nil {
		return nil, err
	}
	a.now.Store(now)
	return a, nil
}

// Issues tells whether tokens can be issued.
func (a *Authority) Issues() bool { return a != nil && a.now.Load().signer != nil }

// Keys are the public keys, as /openid/v1/jwks publishes them.
func (a *Authority) Keys() jose.JSONWebKeySet { return a.now.Load().set }

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
	signer := a.now.Load().signer
	if signer == nil {
		return "", errors.New("this server issues no tokens: it was started without --service-account-signing-key-file")
	}
	c.Issuer = a.Issuer()
	return jwt.Signed(signer).Claims(c).Serialize()
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
		key, ok := a.now.Load().keys[id]
		if !ok {
			return nil, errors.New("the token was signed by a key this server does not know")
		}
		if err := t.Claims(key, c); err != nil {
			return nil, errors.New("the token's signature is wrong")
		}
		return c, nil
	}
	for _, key := range a.now.Load().keys {
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
