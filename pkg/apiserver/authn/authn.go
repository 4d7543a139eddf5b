// Package authn answers who asks.
//
// The flow: a front proxy's headers, a client certificate, a bearer token (static, bootstrap, service account, of other
// issuers, a webhook's), and last nobody in particular; the first that knows the request answers, one that knows it and
// finds it wrong refuses it. What a token or certificate was found to be is remembered for some seconds. An Authenticator
// is shared by all requests; Run follows the configuration of issuers, which is replaced whole.
package authn

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/pkg/apiserver/request"
	"github.com/sextant-k8s/sextant/pkg/apiserver/tokens"
)

// Config says which credentials count.
type Config struct {
	Env             kind.Env
	ClientCAFile    string
	Tokens          *tokens.Authority // nil = no service account tokens
	BootstrapTokens bool
	StaticTokens    string // CSV file
	Anonymous       bool   // unless File says otherwise
	AnonymousSet    bool   // Anonymous was asked for
	File            string // AuthenticationConfiguration, "" = OIDC
	OIDC            OIDC
	Webhook         Webhook
	Audiences       []string // of this server where Tokens is nil

	// The front proxy: who may name the user in which headers.
	ProxyCAFile                              string
	ProxyNames                               []string
	UserHeaders, GroupHeaders, ExtraPrefixes []string
	UIDHeaders                               []string
}

// Authenticator answers who asks.
type Authenticator struct {
	c          Config
	clientCAs  *pool
	proxyCAs   *pool
	static     map[string]user.Info
	trusted    *trusted
	webhook    authenticator.Token // nil = none
	mu         sync.Mutex
	remembered map[[32]byte]memory
	verified   map[*x509.Certificate]memory // of open connections
}

type memory struct {
	response *authenticator.Response
	until    time.Time
	notes    request.Notes // to be told each time
}

// How long, and how many, verified tokens are remembered.
const (
	remember    = 10 * time.Second
	maxMemories = 4096
)

// New reads what the configuration names.
func New(c Config) (*Authenticator, error) {
	a := &Authenticator{c: c, remembered: map[[32]byte]memory{}, verified: map[*x509.Certificate]memory{}}
	var err error
	if a.clientCAs, err = newPool(c.ClientCAFile); err != nil {
		return nil, fmt.Errorf("reading --client-ca-file: %w", err)
	}
	if a.proxyCAs, err = newPool(c.ProxyCAFile); err != nil {
		return nil, fmt.Errorf("reading --requestheader-client-ca-file: %w", err)
	}
	if c.StaticTokens != "" {
		if a.static, err = readStatic(c.StaticTokens); err != nil {
			return nil, err
		}
	}
	if a.webhook, err = c.Webhook.open(c.audiences()); err != nil {
		return nil, err
	}
	if a.trusted, err = newTrusted(&a.c); err != nil {
		return nil, err
	}
	return a, nil
}

func (c *Config) audiences() []string {
	if c.Tokens != nil {
		return c.Tokens.Audiences()
	}
	return c.Audiences
}

// forget drops everything remembered.
func (a *Authenticator) forget() {
	a.mu.Lock()
	defer a.mu.Unlock()
	clear(a.remembered)
	clear(a.verified)
}

// errBad is the answer to credentials that do not hold.
var errBad = errors.New("the credentials are not valid")

// AuthenticateRequest answers who sent the request. ok is false when nobody can say.
func (a *Authenticator) AuthenticateRequest(r *http.Request) (*authenticator.Response, bool, error) {
	begun := time.Now()
	resp, ok, err := a.authenticate(r)
	count(resp, ok, err, begun)
	return resp, ok, err
}

func (a *Authenticator) authenticate(r *http.Request) (*authenticator.Response, bool, error) {
	if u, ok, err := a.frontProxy(r); ok || err != nil {
		return withGroup(u, ok, err)
	}
	if u, ok, err := a.certificate(r); ok || err != nil {
		return u, ok, err
	}
	if token := bearer(r); token != "" {
		resp, ok, err := a.token(r.Context(), token, nil)
		if err == nil && !ok {
			err = errBad
		}
		if err != nil {
			return nil, false, err
		}
		return withGroup(resp, ok, nil)
	}
	if !a.anonymous(r.URL.Path) {
		return nil, false, nil
	}
	return &authenticator.Response{User: &user.DefaultInfo{Name: user.Anonymous, Groups: []string{user.AllUnauthenticated}}}, true, nil
}

// Tried names the credentials that a request carries, "" if none.
func Tried(r *http.Request) string {
	var out []string
	if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		out = append(out, "x509")
	}
	if r.Header.Get("Authorization") != "" {
		out = append(out, "bearer")
	}
	return strings.Join(out, ", ")
}

// withGroup adds the group that everybody known is in.
func withGroup(r *authenticator.Response, ok bool, err error) (*authenticator.Response, bool, error) {
	if !ok || err != nil || slices.Contains(r.User.GetGroups(), user.AllAuthenticated) || r.User.GetName() == user.Anonymous {
		return r, ok, err
	}
	u := r.User
	out := *r
	out.User = &user.DefaultInfo{
		Name: u.GetName(), UID: u.GetUID(), Extra: u.GetExtra(), Groups: append(slices.Clone(u.GetGroups()), user.AllAuthenticated),
	}
	return &out, true, nil
}

// Token answers whose token it is, for a TokenReview with its audiences.
func (a *Authenticator) Token(ctx context.Context, token string, audiences []string) (*authenticator.Response, bool, error) {
	r, ok, err := a.token(ctx, token, audiences)
	return withGroup(r, ok, err)
}

func (a *Authenticator) token(ctx context.Context, token string, audiences []string) (*authenticator.Response, bool, error) {
	key := sha256.Sum256([]byte(strings.Join(audiences, ",") + "\x00" + token))
	now := time.Now()
	a.mu.Lock()
	m, ok := a.remembered[key]
	a.mu.Unlock()
	if ok && now.Before(m.until) {
		tell(ctx, &m.notes)
		return m.response, true, nil
	}
	var notes request.Notes
	r, keep, err := a.lookUp(request.WithNotes(ctx, &notes), token, audiences, now)
	tell(ctx, &notes)
	if err != nil || r == nil {
		return nil, false, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.remembered) >= maxMemories {
		clear(a.remembered)
	}
	a.remembered[key] = memory{r, now.Add(keep), notes}
	return r, true, nil
}

// tell passes notes on to the request they are about.
func tell(ctx context.Context, n *request.Notes) {
	if to := request.NotesOf(ctx); to != nil {
		to.Warnings, to.Annotations = append(to.Warnings, n.Warnings...), append(to.Annotations, n.Annotations...)
	}
}

// lookUp asks everybody whose token it is, and answers for how long that may be remembered; nil if nobody knows it.
func (a *Authenticator) lookUp(ctx context.Context, token string, audiences []string, now time.Time) (*authenticator.Response, time.Duration, error) {
	// Most tokens do not say for whom they are meant: then they are meant for this server.
	here, meant := a.meant(audiences)
	if u := a.static[token]; u != nil && meant {
		return &authenticator.Response{User: u, Audiences: here}, remember, nil
	}
	if a.c.BootstrapTokens && meant {
		if u, ok := a.bootstrap(ctx, token, now); ok {
			return &authenticator.Response{User: u, Audiences: here}, remember, nil
		}
	}
	r, ok, err := a.c.Tokens.Verify(ctx, a.c.Env, token, audiences, now)
	if ok || err != nil {
		return r, remember, err
	}
	if meant {
		if r, ok, err = a.trusted.now.Load().foreign(ctx, token); ok {
			return &authenticator.Response{User: r.User, Audiences: here}, remember, nil
		}
	}
	if a.webhook == nil {
		return nil, 0, err
	}
	r, ok, werr := a.service(ctx, token, audiences)
	if ok && werr == nil {
		return r, a.c.Webhook.CacheTTL, nil
	}
	return nil, 0, errors.Join(err, werr)
}

// meant tells whether a token that is meant for this server serves audiences, and which of them.
func (a *Authenticator) meant(audiences []string) (here []string, ok bool) {
	own := a.c.audiences()
	if len(audiences) == 0 || len(own) == 0 {
		return nil, len(audiences) == 0
	}
	here = slices.DeleteFunc(slices.Clone(audiences), func(s string) bool { return !slices.Contains(own, s) })
	return here, len(here) > 0
}

// bearer answers a request's token. A WebSocket client, which cannot set headers, sends it as a subprotocol.
func bearer(r *http.Request) string {
	if scheme, token, ok := strings.Cut(strings.TrimSpace(r.Header.Get("Authorization")), " "); ok && strings.EqualFold(scheme, "Bearer") {
		return strings.TrimSpace(token)
	}
	return socketToken(r)
}

// certificate answers who a client certificate names: its common name, in the groups of its organizations.
func (a *Authenticator) certificate(r *http.Request) (*authenticator.Response, bool, error) {
	if a.clientCAs == nil || r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return nil, false, nil
	}
	cert := r.TLS.PeerCertificates[0]
	now := time.Now()
	certificateLife.Observe(cert.NotAfter.Sub(now).Seconds())
	a.mu.Lock()
	m, known := a.verified[cert]
	a.mu.Unlock()
	if known && now.Before(m.until) {
		return m.response, true, nil // a connection keeps its certificate, so this is the same one
	}
	if err := verify(a.clientCAs, r.TLS.PeerCertificates); err != nil {
		if bearer(r) != "" {
			return nil, false, nil // the token may be good
		}
		return nil, false, fmt.Errorf("verifying certificate SN=%d, SKID=%X failed: %w", cert.SerialNumber, cert.SubjectKeyId, err)
	}
	if cert.Subject.CommonName == "" {
		return nil, false, nil
	}
	sum := sha256.Sum256(cert.Raw)
	resp, _, _ := withGroup(&authenticator.Response{User: &user.DefaultInfo{
		Name: cert.Subject.CommonName, Groups: slices.Clone(cert.Subject.Organization),
		Extra: map[string][]string{user.CredentialIDKey: {"X509SHA256=" + hex.EncodeToString(sum[:])}},
	}}, true, nil)
	until := now.Add(remember)
	if cert.NotAfter.Before(until) {
		until = cert.NotAfter
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.verified) >= maxMemories {
		clear(a.verified)
	}
	a.verified[cert] = memory{response: resp, until: until}
	return resp, true, nil
}

func verify(cas *pool, chain []*x509.Certificate) error {
	opts := x509.VerifyOptions{Roots: cas.get(), Intermediates: x509.NewCertPool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	for _, c := range chain[1:] {
		opts.Intermediates.AddCert(c)
	}
	_, err := chain[0].Verify(opts)
	return err
}

// pool is CAs that follow their file.
type pool struct {
	file string

	mu     sync.Mutex
	cas    *x509.CertPool
	looked time.Time
	stamp  time.Time
}

// reread is how often a CA file is looked at.
const reread = 10 * time.Second

func newPool(file string) (*pool, error) {
	if file == "" {
		return nil, nil
	}
	p := &pool{file: file}
	return p, p.read()
}

func (p *pool) read() error {
	st, err := os.Stat(p.file)
	if err != nil {
		return err
	}
	if p.cas != nil && st.ModTime().Equal(p.stamp) {
		return nil
	}
	pem, err := os.ReadFile(p.file)
	if err != nil {
		return err
	}
	cas := x509.NewCertPool()
	if !cas.AppendCertsFromPEM(pem) {
		return fmt.Errorf("%s holds no certificate", p.file)
	}
	p.cas, p.stamp = cas, st.ModTime()
	return nil
}

// get answers the CAs; a file that became unreadable leaves the last good ones.
func (p *pool) get() *x509.CertPool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if time.Since(p.looked) > reread {
		p.looked = time.Now()
		_ = p.read() // a half written file is read again next time
	}
	return p.cas
}
