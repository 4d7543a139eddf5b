package tokens

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/pkg/apiserver/request"
)

// LegacyIssuer is the name under which tokens were issued that lie in secrets and last as long as these.
const LegacyIssuer = "kubernetes/serviceaccount"

// The labels of such a secret that say when its token was used last, and since when it counts no more.
const (
	lastUsed     = "kubernetes.io/legacy-token-last-used"
	invalidSince = "kubernetes.io/legacy-token-invalid-since"
)

// legacyClaims are what such a token says.
type legacyClaims struct {
	jwt.Claims
	Namespace string `json:"kubernetes.io/serviceaccount/namespace"`
	Secret    string `json:"kubernetes.io/serviceaccount/secret.name"`
	Account   string `json:"kubernetes.io/serviceaccount/service-account.name"`
	UID       string `json:"kubernetes.io/serviceaccount/service-account.uid"`
}

var (
	legacyTokens = prometheus.NewCounter(prometheus.CounterOpts{Name: "serviceaccount_legacy_tokens_total", Help: "Uses of tokens that lie in secrets."})
	autoUses     = prometheus.NewCounter(prometheus.CounterOpts{Name: "serviceaccount_legacy_auto_token_uses_total", Help: "Uses of tokens that were made for their accounts unasked."})
	manualUses   = prometheus.NewCounter(prometheus.CounterOpts{Name: "serviceaccount_legacy_manual_token_uses_total", Help: "Uses of tokens of secrets that somebody made."})
	invalidUses  = prometheus.NewCounter(prometheus.CounterOpts{Name: "serviceaccount_invalid_legacy_auto_token_uses_total", Help: "Uses of tokens that count no more."})
	staleTokens  = prometheus.NewCounter(prometheus.CounterOpts{Name: "serviceaccount_stale_tokens_total", Help: "Uses of tokens that should have been reread."})
	validTokens  = prometheus.NewCounter(prometheus.CounterOpts{Name: "serviceaccount_valid_tokens_total", Help: "Uses of tokens in their time."})
)

// Collectors are what this room counts. A token that was verified a moment ago is not counted again.
func Collectors() []prometheus.Collector {
	return []prometheus.Collector{legacyTokens, autoUses, manualUses, invalidUses, staleTokens, validTokens, fetches, fetchTime, dataTime, signings, callTimes}
}

// legacy answers whose token it is if it is one that lies in a secret; ours is false if it is none.
func (a *Authority) legacy(ctx context.Context, env kind.Env, token string, audiences []string, now time.Time) (r *authenticator.Response, ours bool, err error) {
	t, err := jwt.ParseSigned(token, accepted)
	if err != nil {
		return nil, false, nil //nolint:nilerr // it is no token of this form
	}
	c := &legacyClaims{}
	if err := t.UnsafeClaimsWithoutVerification(c); err != nil || c.Issuer != LegacyIssuer {
		return nil, false, nil //nolint:nilerr // it is somebody else's
	}
	c, signed := &legacyClaims{}, false
	for _, key := range a.keys().keys {
		if signed = t.Claims(key, c) == nil; signed {
			break
		}
	}
	if !signed {
		return nil, true, errors.New("the token's signature is wrong")
	}
	common := slices.Clone(a.audiences) // it is for whoever serves the cluster
	if len(audiences) > 0 {
		common = slices.DeleteFunc(common, func(s string) bool { return !slices.Contains(audiences, s) })
	}
	if len(common) == 0 {
		return nil, true, fmt.Errorf("token audiences %q is invalid for the target audiences %q", a.audiences, audiences)
	}
	if err := checkLegacy(ctx, env, token, c, now); err != nil {
		return nil, true, err
	}
	legacyTokens.Inc()
	return &authenticator.Response{Audiences: common, User: serviceaccount.UserInfo(c.Namespace, c.Account, c.UID)}, true, nil
}

// checkLegacy checks that secret and account still are what they were, and notes that the token is used.
func checkLegacy(ctx context.Context, env kind.Env, token string, c *legacyClaims, now time.Time) error {
	switch {
	case c.Namespace == "" || c.Secret == "" || c.Account == "" || c.UID == "":
		return errors.New("the token names no service account, or no secret")
	case c.Subject != serviceaccount.MakeUsername(c.Namespace, c.Account):
		return errors.New("sub claim is invalid")
	}
	find := func(gr schema.GroupResource, name string) (kind.Object, error) {
		obj, err := env.Get(ctx, gr, c.Namespace, name)
		if apierrors.IsNotFound(err) {
			obj, err = env.GetFresh(ctx, gr, c.Namespace, name) // it may be so new that the cache has not seen it
		}
		return obj, err
	}
	obj, err := find(secretsGR, c.Secret)
	if err != nil || obj.GetDeletionTimestamp() != nil {
		return errors.New("service account token has been invalidated")
	}
	secret := obj.(*corev1.Secret)
	if string(secret.Data[corev1.ServiceAccountTokenKey]) != token {
		return errors.New("service account token does not match server's copy")
	}
	if obj, err = find(serviceAccounts, c.Account); err != nil {
		return err
	}
	account := obj.(*corev1.ServiceAccount)
	switch {
	case account.DeletionTimestamp != nil:
		return fmt.Errorf("service account %s/%s has been deleted", c.Namespace, c.Account)
	case string(account.UID) != c.UID:
		return fmt.Errorf("service account UID (%s) does not match claim (%s)", account.UID, c.UID)
	}
	notes := request.NotesOf(ctx)
	note := "authentication.k8s.io/legacy-token-manual-secret"
	if slices.ContainsFunc(account.Secrets, func(r corev1.ObjectReference) bool { return r.Name == secret.Name }) {
		note = "authentication.k8s.io/legacy-token-autogenerated-secret"
		notes.Warn("Use tokens from the TokenRequest API or manually created secret-based tokens instead of auto-generated secret-based tokens.")
		autoUses.Inc()
	} else {
		manualUses.Inc()
	}
	notes.Annotate(note, secret.Name)
	used(ctx, env, secret, now)
	if secret.Labels[invalidSince] == "" {
		return nil
	}
	invalidUses.Inc()
	notes.Annotate("authentication.k8s.io/legacy-token-invalidated", secret.Name+"/"+secret.Namespace)
	return fmt.Errorf("the token in secret %s/%s for service account %s/%s has been marked invalid. Use tokens from the TokenRequest API or manually created secret-based tokens, or remove the '%s' label from the secret to temporarily allow use of this token",
		secret.Namespace, secret.Name, account.Namespace, account.Name, invalidSince)
}

// used writes the day on which the token was used onto its secret, once a day.
func used(ctx context.Context, env kind.Env, secret *corev1.Secret, now time.Time) {
	today := now.UTC().Format(time.DateOnly)
	if secret.Labels[lastUsed] == today {
		return
	}
	_, err := env.Mutate(ctx, secretsGR, secret.Namespace, secret.Name, func(obj kind.Object) error {
		metav1.SetMetaDataLabel(&obj.(*corev1.Secret).ObjectMeta, lastUsed, today)
		return nil
	})
	if err != nil {
		slog.Warn("the last use of a token cannot be noted on its secret", "secret", secret.Namespace+"/"+secret.Name, "err", err)
	}
}
