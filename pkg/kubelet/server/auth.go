package server

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	authnv1 "k8s.io/api/authentication/v1"
	authzv1 "k8s.io/api/authorization/v1"
	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"
)

// gate lets through who is known and allowed. Answers of the API server are kept for a while, bounded in number.
type gate struct {
	cfg Config

	mu     sync.Mutex
	tokens map[[32]byte]kept[*user]
	rights map[string]kept[bool]
}

type kept[T any] struct {
	v     T
	until time.Time
}

type user struct {
	name, uid string
	groups    []string
	extra     map[string]authzv1.ExtraValue
}

const mostKept = 1024

func newGate(cfg Config) *gate {
	return &gate{cfg: cfg, tokens: map[[32]byte]kept[*user]{}, rights: map[string]kept[bool]{}}
}

func (g *gate) wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		u, err := g.who(r)
		if err != nil || u == nil {
			http.Error(w, "Unauthorized", http.StatusUnauthorized)
			return
		}
		ok, err := g.may(r.Context(), u, r)
		if err != nil {
			g.cfg.Log.Warn("asking whether a request is allowed", "user", u.name, "err", err)
			http.Error(w, "Internal Error", http.StatusInternalServerError)
			return
		}
		if !ok {
			verb, resource := attributes(r)
			http.Error(w, fmt.Sprintf("Forbidden (user=%s, verb=%s, resource=nodes, subresource(s)=[%s])", u.name, verb, strings.Join(resource, " ")), http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (g *gate) who(r *http.Request) (*user, error) {
	auth := g.cfg.Kubelet.Authentication
	if auth.X509.ClientCAFile != "" && r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		return g.certificate(r)
	}
	if token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
		if !*auth.Webhook.Enabled || g.cfg.Client == nil {
			return nil, nil
		}
		return g.token(r.Context(), token)
	}
	if *auth.Anonymous.Enabled {
		return &user{name: "system:anonymous", groups: []string{"system:unauthenticated"}}, nil
	}
	return nil, nil
}

func loadPool(path string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	p := x509.NewCertPool()
	p.AppendCertsFromPEM(pem)
	return p, nil
}

// certificate verifies the peer's chain against the client authorities of the TLS configuration.
func (g *gate) certificate(r *http.Request) (*user, error) {
	roots, err := loadPool(g.cfg.Kubelet.Authentication.X509.ClientCAFile)
	if err != nil {
		return nil, err
	}
	chain := r.TLS.PeerCertificates
	opts := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	for _, c := range chain[1:] {
		opts.Intermediates.AddCert(c)
	}
	if _, err := chain[0].Verify(opts); err != nil {
		return nil, err
	}
	if chain[0].Subject.CommonName == "" {
		return nil, nil
	}
	return &user{name: chain[0].Subject.CommonName, groups: append(append([]string(nil), chain[0].Subject.Organization...), "system:authenticated")}, nil
}

func (g *gate) token(ctx context.Context, token string) (*user, error) {
	key := sha256.Sum256([]byte(token))
	g.mu.Lock()
	k, ok := g.tokens[key]
	g.mu.Unlock()
	if ok && time.Now().Before(k.until) {
		return k.v, nil
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	r, err := g.cfg.Client.TokenReviews.Create(ctx, "", &authnv1.TokenReview{Spec: authnv1.TokenReviewSpec{Token: token}})
	if err != nil {
		return nil, err
	}
	var u *user
	if r.Status.Authenticated {
		u = &user{name: r.Status.User.Username, uid: r.Status.User.UID, groups: r.Status.User.Groups, extra: map[string]authzv1.ExtraValue{}}
		for k, v := range r.Status.User.Extra {
			u.extra[k] = authzv1.ExtraValue(v)
		}
	}
	keep(&g.mu, g.tokens, key, u, g.cfg.Kubelet.Authentication.Webhook.CacheTTL.Duration)
	return u, nil
}

// may asks for the first of the fine-grained rights, then for the old nodes/proxy.
func (g *gate) may(ctx context.Context, u *user, r *http.Request) (bool, error) {
	if g.cfg.Kubelet.Authorization.Mode == kubeletv1beta1.KubeletAuthorizationModeAlwaysAllow {
		return true, nil
	}
	if g.cfg.Client == nil {
		return false, nil
	}
	verb, subresources := attributes(r)
	for _, sub := range subresources {
		ok, err := g.right(ctx, u, verb, sub)
		if ok || err != nil {
			return ok, err
		}
	}
	return false, nil
}

func (g *gate) right(ctx context.Context, u *user, verb, sub string) (bool, error) {
	key := fmt.Sprintf("%q %q %q %q %q %q", u.name, u.uid, u.groups, u.extra, verb, sub)
	g.mu.Lock()
	k, ok := g.rights[key]
	g.mu.Unlock()
	if ok && time.Now().Before(k.until) {
		return k.v, nil
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	r, err := g.cfg.Client.AccessReviews.Create(ctx, "", &authzv1.SubjectAccessReview{Spec: authzv1.SubjectAccessReviewSpec{
		User: u.name, UID: u.uid, Groups: u.groups, Extra: u.extra,
		ResourceAttributes: &authzv1.ResourceAttributes{Verb: verb, Version: "v1", Resource: "nodes", Subresource: sub, Name: g.cfg.NodeName},
	}})
	if err != nil {
		return false, err
	}
	hold := g.cfg.Kubelet.Authorization.Webhook.CacheUnauthorizedTTL.Duration
	if r.Status.Allowed {
		hold = g.cfg.Kubelet.Authorization.Webhook.CacheAuthorizedTTL.Duration
	}
	keep(&g.mu, g.rights, key, r.Status.Allowed, hold)
	return r.Status.Allowed, nil
}

func keep[K comparable, T any](mu *sync.Mutex, m map[K]kept[T], key K, v T, d time.Duration) {
	mu.Lock()
	defer mu.Unlock()
	if len(m) >= mostKept {
		clear(m)
	}
	m[key] = kept[T]{v, time.Now().Add(d)}
}

// attributes are a request's verb and the node subresources which allow it, any of them.
func attributes(r *http.Request) (verb string, subresources []string) {
	switch r.Method {
	case http.MethodPost:
		verb = "create"
	case http.MethodPut:
		verb = "update"
	case http.MethodPatch:
		verb = "patch"
	case http.MethodDelete:
		verb = "delete"
	default:
		verb = "get"
	}
	first, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	switch first {
	case "exec", "attach", "portForward", "run":
		// Commands are creations however they are asked for: a websocket can only GET.
		return "create", []string{"proxy"}
	case "stats":
		return verb, []string{"stats"}
	case "metrics":
		return verb, []string{"metrics"}
	case "checkpoint":
		return verb, []string{"checkpoint", "proxy"}
	case "logs":
		return verb, []string{"log"}
	case "healthz":
		return verb, []string{"healthz", "proxy"}
	case "configz":
		return verb, []string{"configz", "proxy"}
	case "pods", "runningpods":
		return verb, []string{"pods", "proxy"}
	}
	return verb, []string{"proxy"}
}
