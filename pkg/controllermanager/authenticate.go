package controllermanager

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// user is who asks.
type user = authenticationv1.UserInfo

// authenticator finds out who asks: by a proxy's word, a certificate, or a token that the apiserver knows.
type authenticator struct {
	client kubernetes.Interface
	given  trust // by flags
	lookup bool  // whether the cluster is asked for what flags do not say

	mu    sync.Mutex
	found trust
	until time.Time
}

// trust is whose certificates and words are believed.
type trust struct {
	clients, front                         *x509.CertPool
	names, userHeaders, groupHeaders, more []string
}

// lookupEvery is how long what the cluster says of its CAs is believed.
const lookupEvery = time.Minute

func newAuthenticator(c *Config, client kubernetes.Interface) (*authenticator, error) {
	a := &authenticator{client: client, lookup: !c.SkipLookup}
	f := c.Front
	a.given = trust{names: f.AllowedNames, userHeaders: f.UserHeaders, groupHeaders: f.GroupHeaders, more: f.Extra}
	var errs []error
	for _, file := range []struct {
		flag, path string
		pool       **x509.CertPool
	}{{"--client-ca-file", c.ClientCAFile, &a.given.clients}, {"--requestheader-client-ca-file", f.CAFile, &a.given.front}} {
		if file.path == "" {
			continue
		}
		data, err := os.ReadFile(file.path)
		if err == nil {
			*file.pool, err = pool(data)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("reading %s: %w", file.flag, err))
		}
	}
	return a, errors.Join(errs...)
}

func pool(pem []byte) (*x509.CertPool, error) {
	p := x509.NewCertPool()
	if !p.AppendCertsFromPEM(pem) {
		return nil, errors.New("there is no certificate in it")
	}
	return p, nil
}

// trusted answers whom to believe: what flags say, and for what they do not, what the apiserver published.
func (a *authenticator) trusted(ctx context.Context) trust {
	if !a.lookup || a.given.clients != nil && a.given.front != nil {
		return a.given
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if time.Now().After(a.until) {
		a.until = time.Now().Add(lookupEvery)
		// Without it tokens still work; it is asked for again later.
		if m, err := a.client.CoreV1().ConfigMaps(metav1.NamespaceSystem).Get(ctx, "extension-apiserver-authentication", metav1.GetOptions{}); err == nil {
			a.found = published(m.Data)
		}
	}
	t := a.given
	if t.clients == nil {
		t.clients = a.found.clients
	}
	if t.front == nil {
		clients := t.clients
		t = a.found
		t.clients = clients
	}
	return t
}

// published reads what the apiserver says of its own trust.
func published(data map[string]string) trust {
	list := func(key string) []string {
		var out []string
		if json.Unmarshal([]byte(data[key]), &out) != nil {
			return nil
		}
		return out
	}
	t := trust{
		names: list("requestheader-allowed-names"), userHeaders: list("requestheader-username-headers"),
		groupHeaders: list("requestheader-group-headers"), more: list("requestheader-extra-headers-prefix"),
	}
	if p, err := pool([]byte(data["client-ca-file"])); err == nil {
		t.clients = p
	}
	if p, err := pool([]byte(data["requestheader-client-ca-file"])); err == nil {
		t.front = p
	}
	return t
}

// who answers who asks, nil if that is not known.
func (a *authenticator) who(r *http.Request) (*user, error) {
	if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		t := a.trusted(r.Context())
		leaf := r.TLS.PeerCertificates[0]
		if signed(leaf, r.TLS.PeerCertificates[1:], t.front) && (len(t.names) == 0 || slices.Contains(t.names, leaf.Subject.CommonName)) {
			if u := t.told(r.Header); u != nil {
				return u, nil
			}
		}
		if signed(leaf, r.TLS.PeerCertificates[1:], t.clients) && leaf.Subject.CommonName != "" {
			return &user{Username: leaf.Subject.CommonName, Groups: append(slices.Clone(leaf.Subject.Organization), "system:authenticated")}, nil
		}
	}
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok {
		return nil, nil
	}
	got, err := a.client.AuthenticationV1().TokenReviews().Create(r.Context(), &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token}}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsInvalid(err) {
		return nil, fmt.Errorf("asking the apiserver about a token: %w", err)
	}
	if err != nil || !got.Status.Authenticated {
		return nil, nil
	}
	return &got.Status.User, nil
}

func signed(leaf *x509.Certificate, between []*x509.Certificate, roots *x509.CertPool) bool {
	if roots == nil {
		return false
	}
	middle := x509.NewCertPool()
	for _, c := range between {
		middle.AddCert(c)
	}
	_, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: middle, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	return err == nil
}

// told answers whom a proxy's headers name, nil if none.
func (t trust) told(h http.Header) *user {
	u := &user{Extra: map[string]authenticationv1.ExtraValue{}}
	for _, name := range t.userHeaders {
		if u.Username = h.Get(name); u.Username != "" {
			break
		}
	}
	if u.Username == "" {
		return nil
	}
	for _, name := range t.groupHeaders {
		u.Groups = append(u.Groups, h.Values(name)...)
	}
	for _, prefix := range t.more {
		for name, values := range h {
			if key, ok := strings.CutPrefix(strings.ToLower(name), strings.ToLower(prefix)); ok {
				if plain, err := url.PathUnescape(key); err == nil {
					u.Extra[plain] = append(u.Extra[plain], values...)
				}
			}
		}
	}
	return u
}
