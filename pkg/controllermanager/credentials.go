package controllermanager

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/sextant-k8s/sextant/pkg/controllermanager/runtime"
)

// tokenLife is how long a token is asked to live. It is renewed when four fifths of its life are over.
const tokenLife = time.Hour

// signer sends each request as the service account that its context names, or as the daemon itself where it names none.
// Two connections serve all: one that shows the daemon's certificate, one that shows none and carries tokens.
type signer struct {
	own, bare http.RoundTripper
	client    kubernetes.Interface // the daemon's own, for tokens

	mu     sync.Mutex
	tokens map[string]*token // by account
}

// token is one account's; its lock is held while it is renewed, so that it is asked for once.
type token struct {
	mu    sync.Mutex
	value string
	renew time.Time
}

// newSigner answers a transport for all controllers; client acts as the daemon itself.
func newSigner(config *rest.Config, client kubernetes.Interface) (*signer, error) {
	own, err := rest.TransportFor(config)
	if err != nil {
		return nil, fmt.Errorf("making a transport of --kubeconfig: %w", err)
	}
	bare, err := rest.TransportFor(rest.AnonymousClientConfig(config))
	if err != nil {
		return nil, fmt.Errorf("making a transport of --kubeconfig: %w", err)
	}
	return &signer{own: own, bare: bare, client: client, tokens: map[string]*token{}}, nil
}

// RoundTrip sends a request with the token of its account. One that is refused is forgotten: the caller's next try asks for
// another, as when the account was deleted and made anew.
func (s *signer) RoundTrip(r *http.Request) (*http.Response, error) {
	account := runtime.AccountOf(r.Context())
	if account == "" {
		return s.own.RoundTrip(r)
	}
	t := s.of(account)
	value, err := s.fresh(r.Context(), account, t)
	if err != nil {
		return nil, err
	}
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+value)
	resp, err := s.bare.RoundTrip(r)
	if err == nil && resp.StatusCode == http.StatusUnauthorized {
		t.mu.Lock()
		if t.value == value {
			t.renew = time.Time{}
		}
		t.mu.Unlock()
	}
	return resp, err
}

func (s *signer) of(account string) *token {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.tokens[account]
	if t == nil {
		t = &token{}
		s.tokens[account] = t
	}
	return t
}

// fresh answers a token of an account that is good for a while, making the account if there is none.
func (s *signer) fresh(ctx context.Context, account string, t *token) (string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if time.Now().Before(t.renew) {
		return t.value, nil
	}
	ctx = runtime.As(ctx, "") // asking for a token is the daemon's own business
	accounts := s.client.CoreV1().ServiceAccounts(metav1.NamespaceSystem)
	ask := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: new(int64(tokenLife / time.Second))}}
	got, err := accounts.CreateToken(ctx, account, ask, metav1.CreateOptions{})
	if apierrors.IsNotFound(err) {
		_, err = accounts.Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, Name: account}}, metav1.CreateOptions{})
		if err == nil || apierrors.IsAlreadyExists(err) {
			got, err = accounts.CreateToken(ctx, account, ask, metav1.CreateOptions{})
		}
	}
	if err != nil {
		return "", fmt.Errorf("asking for a token of the service account %s: %w", account, err)
	}
	life := int64(tokenLife / time.Second)
	if got.Spec.ExpirationSeconds != nil {
		life = *got.Spec.ExpirationSeconds // the server may have said another; clocks may differ, so its length counts
	}
	t.value, t.renew = got.Status.Token, time.Now().Add(time.Duration(life)*time.Second*4/5)
	return t.value, nil
}
