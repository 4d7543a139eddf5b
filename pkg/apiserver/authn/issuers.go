package authn

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/apiserver/pkg/apis/apiserver/install"
	"k8s.io/apiserver/pkg/apis/apiserver/validation"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	authncel "k8s.io/apiserver/pkg/authentication/cel"
	"k8s.io/apiserver/plugin/pkg/authenticator/token/oidc"
)

// OIDC is one issuer of identity tokens as flags describe it.
type OIDC struct {
	IssuerURL, ClientID, CAFile   string
	UsernameClaim, UsernamePrefix string
	GroupsClaim, GroupsPrefix     string
	SigningAlgs                   []string
	RequiredClaims                map[string]string
}

// issuers are those whose tokens count besides our own, and who may stay unknown: one reading of the configuration,
// replaced whole.
type issuers struct {
	sum       [32]byte
	jwt       []authenticator.Token
	anonymous *apiserver.AnonymousAuthConfig // nil = the flag says
	end       context.CancelFunc
}

// trusted follows the configuration of issuers.
type trusted struct {
	c   *Config
	now atomic.Pointer[issuers]
}

var codecs = func() serializer.CodecFactory {
	s := runtime.NewScheme()
	install.Install(s)
	return serializer.NewCodecFactory(s, serializer.EnableStrict)
}()

func newTrusted(c *Config) (*trusted, error) {
	t := &trusted{c: c}
	if c.File != "" && c.OIDC.IssuerURL != "" {
		return nil, errors.New("--authentication-config and --oidc-issuer-url exclude each other: put the issuer into the file")
	}
	if c.File != "" {
		if _, err := t.read(); err != nil {
			return nil, fmt.Errorf("reading --authentication-config: %w", err)
		}
		return t, nil
	}
	conf, err := c.OIDC.structured()
	if err != nil {
		return nil, err
	}
	now, err := t.build(conf, c.OIDC.SigningAlgs)
	if err != nil {
		return nil, fmt.Errorf("the --oidc- flags: %w", err)
	}
	t.now.Store(now)
	return t, nil
}

// structured is the configuration that the flags stand for.
func (o *OIDC) structured() (*apiserver.AuthenticationConfiguration, error) {
	conf := &apiserver.AuthenticationConfiguration{}
	if o.IssuerURL == "" {
		if o.ClientID != "" {
			return nil, errors.New("--oidc-client-id needs --oidc-issuer-url")
		}
		return conf, nil
	}
	if o.ClientID == "" {
		return nil, errors.New("--oidc-issuer-url needs --oidc-client-id")
	}
	prefix := o.UsernamePrefix
	switch {
	case prefix == "-":
		prefix = ""
	case prefix == "" && o.UsernameClaim != "email":
		prefix = o.IssuerURL + "#" // names of an issuer must not be taken for names of the cluster
	}
	j := apiserver.JWTAuthenticator{
		Issuer:        apiserver.Issuer{URL: o.IssuerURL, Audiences: []string{o.ClientID}},
		ClaimMappings: apiserver.ClaimMappings{Username: apiserver.PrefixedClaimOrExpression{Claim: o.UsernameClaim, Prefix: &prefix}},
	}
	if o.GroupsClaim != "" {
		j.ClaimMappings.Groups = apiserver.PrefixedClaimOrExpression{Claim: o.GroupsClaim, Prefix: &o.GroupsPrefix}
	}
	for _, claim := range slices.Sorted(maps.Keys(o.RequiredClaims)) {
		j.ClaimValidationRules = append(j.ClaimValidationRules, apiserver.ClaimValidationRule{Claim: claim, RequiredValue: o.RequiredClaims[claim]})
	}
	if o.CAFile != "" {
		pem, err := os.ReadFile(o.CAFile)
		if err != nil {
			return nil, fmt.Errorf("reading --oidc-ca-file: %w", err)
		}
		j.Issuer.CertificateAuthority = string(pem)
	}
	conf.JWT = append(conf.JWT, j)
	return conf, nil
}

// read takes the file over if it changed.
func (t *trusted) read() (changed bool, err error) {
	data, err := os.ReadFile(t.c.File)
	if err != nil {
		return false, err
	}
	sum := sha256.Sum256(data)
	was := t.now.Load()
	if was != nil && was.sum == sum {
		return false, nil
	}
	conf, err := decode(data)
	if err != nil {
		return false, fmt.Errorf("%s: %w", t.c.File, err)
	}
	if conf.Anonymous != nil && t.c.AnonymousSet {
		return false, fmt.Errorf("%s says who may be anonymous, and so does --anonymous-auth: leave the flag out", t.c.File)
	}
	now, err := t.build(conf, oidc.AllValidSigningAlgorithms())
	if err != nil {
		return false, fmt.Errorf("%s: %w", t.c.File, err)
	}
	now.sum = sum
	t.now.Store(now)
	if was != nil {
		time.AfterFunc(time.Minute, was.end) // who took the old ones may be using them still
	}
	return true, nil
}

func decode(data []byte) (*apiserver.AuthenticationConfiguration, error) {
	if len(bytes.TrimSpace(data)) == 0 {
		return nil, errors.New("the file is empty")
	}
	obj, gvk, err := codecs.UniversalDecoder().Decode(data, nil, nil)
	if err != nil {
		return nil, err
	}
	conf, ok := obj.(*apiserver.AuthenticationConfiguration)
	if !ok {
		return nil, fmt.Errorf("it holds a %s, not an AuthenticationConfiguration", gvk.Kind)
	}
	return conf, nil
}

// build makes the verifiers of a configuration. They look their issuer's keys up beside the requests.
func (t *trusted) build(conf *apiserver.AuthenticationConfiguration, algs []string) (*issuers, error) {
	compiler := authncel.NewDefaultCompiler()
	own := t.c.Tokens.Issuers()
	if err := validation.ValidateAuthenticationConfiguration(compiler, conf, own).ToAggregate(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	now := &issuers{anonymous: conf.Anonymous, end: cancel}
	for _, j := range conf.JWT {
		o := oidc.Options{JWTAuthenticator: j, Compiler: compiler, SupportedSigningAlgs: algs, DisallowedIssuers: own}
		if j.Issuer.CertificateAuthority != "" {
			o.CAContentProvider = bundle(j.Issuer.CertificateAuthority)
		}
		a, err := oidc.New(ctx, o)
		if err != nil {
			cancel()
			return nil, fmt.Errorf("the issuer %s: %w", j.Issuer.URL, err)
		}
		now.jwt = append(now.jwt, a)
	}
	return now, nil
}

// bundle is a set of CAs that does not change.
type bundle string

// CurrentCABundleContent answers them in PEM.
func (b bundle) CurrentCABundleContent() []byte { return []byte(b) }

// Run follows the configuration, and the keys of service account tokens, until ctx ends. The tokens known before are asked for again after a change.
func (a *Authenticator) Run(ctx context.Context) error {
	defer func() { a.trusted.now.Load().end() }()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(5 * time.Second):
		}
		if a.c.Tokens.Reread() {
			a.forget()
		}
		if a.c.File == "" {
			continue
		}
		switch changed, err := a.trusted.read(); {
		case err != nil:
			slog.Error("the authentication configuration is not taken over", "file", a.c.File, "err", err)
		case changed:
			a.forget()
			slog.Info("the authentication configuration was taken over", "file", a.c.File)
		}
	}
}

// anonymous tells whether a path may be asked for by nobody in particular.
func (a *Authenticator) anonymous(path string) bool {
	conf := a.trusted.now.Load().anonymous
	if conf == nil {
		return a.c.Anonymous
	}
	if !conf.Enabled || len(conf.Conditions) == 0 {
		return conf.Enabled
	}
	return slices.ContainsFunc(conf.Conditions, func(c apiserver.AnonymousAuthCondition) bool { return c.Path == path })
}

// foreign asks the other issuers whose token it is.
func (i *issuers) foreign(ctx context.Context, token string) (*authenticator.Response, bool, error) {
	var errs []error
	for _, j := range i.jwt {
		r, ok, err := j.AuthenticateToken(ctx, token)
		if ok && err == nil {
			return r, true, nil
		}
		if err != nil {
			errs = append(errs, err)
		}
	}
	return nil, false, errors.Join(errs...)
}
