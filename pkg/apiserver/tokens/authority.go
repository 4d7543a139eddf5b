// Package tokens issues and verifies service account tokens, and publishes the keys to verify them by.
//
// The flow: Issue signs claims that bind a token to a service account and, if asked, to a pod, node or secret; Verify
// checks signature, issuer, audience and time, then that what the token is bound to still lives. An Authority
// is shared by all requests; its keys are a ring that is replaced whole when their files change, which Reread looks after,
// or when the process that holds the private ones (external.go) has others, which Run does.
package tokens

import (
	"context"
	"errors"
	"fmt"
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
	// Endpoint is the socket of a signer that stands in the place of all these files; "" = none.
	Endpoint  string
	Audiences []string // by which tokens name this server; empty = the issuers
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
	external  *external // nil = the keys are in files
	now       atomic.Pointer[ring]
}

// New reads the keys, or asks the signer for them. Close ends what it opened.
func New(ctx context.Context, c Config) (*Authority, error) {
	a := &Authority{c: c, issuers: c.Issuers, audiences: c.Audiences, maxLife: c.MaxLife, strict: c.Strict}
	if len(a.audiences) == 0 {
		a.audiences = c.Issuers
	}
	if c.Endpoint != "" {
		if err := a.dial(ctx); err != nil {
			return nil, err
		}
		return a, nil
	}
	now, err := readRing(c)
	if err != nil {
		return nil, err
	}
	a.now.Store(now)
	return a, nil
}

// dial connects to the signer. What it allows bounds the life of tokens.
func (a *Authority) dial(ctx context.Context) error {
	x, err := dial(ctx, a.c.Endpoint)
	if err != nil {
		return err
	}
	if a.maxLife > x.maxAge {
		x.close()
		return fmt.Errorf("--service-account-max-token-expiration %v is longer than the %v that the signer at --service-account-signing-endpoint allows: leave it out or shorten it", a.maxLife, x.maxAge)
	}
	if a.maxLife == 0 {
		a.maxLife = x.maxAge
	}
	a.external = x
	return nil
}

// Run keeps the keys of an external signer fresh until ctx ends.
func (a *Authority) Run(ctx context.Context) error {
	if a != nil && a.external != nil {
		a.external.run(ctx)
	}
	return nil
}

// Close ends the connection to an external signer.
func (a *Authority) Close() {
	if a != nil && a.external != nil {
		a.external.close()
	}
}

// keys are those to verify by at this moment.
func (a *Authority) keys() *ring {
	if a.external != nil {
		return a.external.keys.Load()
	}
	return a.now.Load()
}

// Issues tells whether tokens can be issued.
func (a *Authority) Issues() bool {
	return a != nil && (a.external != nil || a.now.Load().signer != nil)
}

// Keys are the public keys, as /openid/v1/jwks publishes them, and for how long they may be kept.
func (a *Authority) Keys() (jose.JSONWebKeySet, time.Duration) {
	if a.external != nil {
		return a.keys().set, a.external.pause()
	}
	return a.keys().set, time.Hour
}

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

// accepted are the ways in which tokens may be signed.
var accepted = []jose.SignatureAlgorithm{jose.RS256, jose.ES256, jose.ES384, jose.ES512}

// Sign makes a token of claims.
func (a *Authority) Sign(ctx context.Context, c *Claims) (string, error) {
	if a.external != nil {
		c.Issuer = a.Issuer()
		return a.external.sign(ctx, c)
	}
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
func (a *Authority) parse(ctx context.Context, token string) (*Claims, error) {
	t, err := jwt.ParseSigned(token, accepted)
	if err != nil {
		return nil, errNotOurs
	}
	unsafe := &Claims{}
	if err := t.UnsafeClaimsWithoutVerification(unsafe); err != nil || !a.accepts(unsafe.Issuer) {
		return nil, errNotOurs
	}
	c := &Claims{}
	if id := t.Headers[0].KeyID; id != "" {
		known := a.keys()
		if a.external != nil {
			known = a.external.with(ctx, id)
		}
		key, ok := known.keys[id]
		if !ok {
			return nil, errors.New("the token was signed by a key this server does not know")
		}
		if err := t.Claims(key, c); err != nil {
			return nil, errors.New("the token's signature is wrong")
		}
		return c, nil
	}
	for _, key := range a.keys().keys {
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
