// Package satoken keeps the secrets in which service accounts have tokens that do not end: it fills those that name an
// account, deletes those whose account is gone, and gives up those that nobody has used for long.
//
// The flow: a secret, or its account, brings the secret's key; decide* says what becomes of it; the token is signed with
// the key of --service-account-private-key-file. No state is kept.
package satoken

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"log/slog"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/util/keyutil"

	"github.com/sextant-k8s/sextant/pkg/controllermanager/runtime"
)

// Issuer signs tokens.
type Issuer struct{ signer jose.Signer }

// NewIssuer reads the key of a file.
func NewIssuer(file string) (*Issuer, error) {
	key, err := keyutil.PrivateKeyFromFile(file)
	if err != nil {
		return nil, err
	}
	alg := jose.RS256
	var public crypto.PublicKey
	switch k := key.(type) {
	case *rsa.PrivateKey:
		public = k.Public()
	case *ecdsa.PrivateKey:
		public = k.Public()
		alg = map[int]jose.SignatureAlgorithm{256: jose.ES256, 384: jose.ES384, 521: jose.ES512}[k.Curve.Params().BitSize]
	}
	if public == nil || alg == "" {
		return nil, fmt.Errorf("a %T cannot sign tokens: use RSA, or ECDSA with P-256, P-384 or P-521", key)
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(der) // servers name keys so too
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: jose.JSONWebKey{Key: key, KeyID: base64.RawURLEncoding.EncodeToString(sum[:])}}, nil)
	if err != nil {
		return nil, err
	}
	return &Issuer{signer}, nil
}

// claims are those of a token that lives as long as its secret.
type claims struct {
	jwt.Claims
	Namespace string `json:"kubernetes.io/serviceaccount/namespace"`
	Secret    string `json:"kubernetes.io/serviceaccount/secret.name"`
	Account   string `json:"kubernetes.io/serviceaccount/service-account.name"`
	UID       string `json:"kubernetes.io/serviceaccount/service-account.uid"`
}

// issue signs a token for an account that is kept in a secret.
func (i *Issuer) issue(a *corev1.ServiceAccount, secret string) (string, error) {
	return jwt.Signed(i.signer).Claims(claims{
		Claims:    jwt.Claims{Issuer: "kubernetes/serviceaccount", Subject: "system:serviceaccount:" + a.Namespace + ":" + a.Name},
		Namespace: a.Namespace, Secret: secret, Account: a.Name, UID: string(a.UID),
	}).Serialize()
}

type controller struct {
	runtime.Deps
	issuer   *Issuer
	ca       []byte
	secrets  corelisters.SecretLister
	accounts corelisters.ServiceAccountLister
}

// New answers the controller; ca is what tokens' users are to trust, in PEM form.
func New(d runtime.Deps, issuer *Issuer, ca []byte) *runtime.Controller {
	core := d.Informers.Core().V1()
	c := &controller{Deps: d, issuer: issuer, ca: ca, secrets: core.Secrets().Lister(), accounts: core.ServiceAccounts().Lister()}
	return &runtime.Controller{
		// It is the one controller that acts as the daemon itself: the accounts of the others have their tokens from here.
		Name: "serviceaccount-token-controller", Queue: "serviceaccount_tokens_secret", For: "tokens of service accounts, in the secrets that ask for them",
		Watches: []runtime.Watch{
			{What: "secrets", Informer: core.Secrets().Informer(), Keys: func(_, obj metav1.Object) []runtime.Key {
				if obj.(*corev1.Secret).Type != corev1.SecretTypeServiceAccountToken {
					return nil
				}
				return []runtime.Key{runtime.KeyOf(obj)}
			}},
			{What: "serviceaccounts", Informer: core.ServiceAccounts().Informer(), Keys: c.of},
		},
		Writes: []string{"secrets"}, Reconcile: c.reconcile,
	}
}

// of answers the secrets of an account.
func (c *controller) of(old, obj metav1.Object) []runtime.Key {
	if old != nil && old.GetUID() == obj.GetUID() {
		return nil
	}
	all, err := c.secrets.Secrets(obj.GetNamespace()).List(labels.Everything())
	if err != nil {
		return nil
	}
	var keys []runtime.Key
	for _, s := range all {
		if s.Type == corev1.SecretTypeServiceAccountToken && s.Annotations[corev1.ServiceAccountNameKey] == obj.GetName() {
			keys = append(keys, runtime.KeyOf(s))
		}
	}
	return keys
}

func (c *controller) reconcile(ctx context.Context, key runtime.Key) (time.Duration, error) {
	s, err := c.secrets.Secrets(key.Namespace).Get(key.Name)
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	name := s.Annotations[corev1.ServiceAccountNameKey]
	account, err := c.accounts.ServiceAccounts(key.Namespace).Get(name)
	if apierrors.IsNotFound(err) && name != "" { // the cache may be behind
		account, err = c.Client.CoreV1().ServiceAccounts(key.Namespace).Get(ctx, name, metav1.GetOptions{})
	}
	if err != nil && !apierrors.IsNotFound(err) {
		return 0, err
	}
	if apierrors.IsNotFound(err) {
		account = nil
	}
	switch decide(s, account, c.ca) {
	case drop:
		slog.Info("a token's account is gone", "secret", key.String(), "account", name)
		err := c.Client.CoreV1().Secrets(s.Namespace).Delete(ctx, s.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &s.UID, ResourceVersion: &s.ResourceVersion}})
		if apierrors.IsNotFound(err) {
			return 0, nil
		}
		return 0, err
	case fill:
		next := s.DeepCopy()
		token := string(next.Data[corev1.ServiceAccountTokenKey])
		if token == "" {
			if token, err = c.issuer.issue(account, s.Name); err != nil {
				return 0, fmt.Errorf("signing the token of %s: %w", key, err)
			}
		}
		next.Data = filled(next.Data, account, c.ca, token)
		metav1.SetMetaDataAnnotation(&next.ObjectMeta, corev1.ServiceAccountUIDKey, string(account.UID))
		_, err := c.Client.CoreV1().Secrets(s.Namespace).Update(ctx, next, metav1.UpdateOptions{})
		return 0, err
	}
	return 0, nil
}

// trackedSince is where the apiserver writes since when it notes who uses tokens.
const trackedSince = "kube-apiserver-legacy-service-account-token-tracking"

// NewCleaner answers the controller that gives up tokens that were made by themselves and have not been used for a time.
func NewCleaner(d runtime.Deps, period time.Duration) *runtime.Controller {
	core := d.Informers.Core().V1()
	return &runtime.Controller{
		Name: "legacy-serviceaccount-token-cleaner-controller", Account: "legacy-service-account-token-cleaner", Queue: "legacy_serviceaccount_token_cleaner",
		For: "tokens made by themselves that nobody uses go", Workers: 1, Every: 24 * time.Hour,
		Watches: []runtime.Watch{
			{What: "secrets", Informer: core.Secrets().Informer(), Keys: func(metav1.Object, metav1.Object) []runtime.Key { return nil }},
			{What: "serviceaccounts", Informer: core.ServiceAccounts().Informer(), Keys: func(metav1.Object, metav1.Object) []runtime.Key { return nil }},
			{What: "pods", Informer: core.Pods().Informer(), Keys: func(metav1.Object, metav1.Object) []runtime.Key { return nil }},
		},
		Writes: []string{"secrets"},
		Reconcile: func(ctx context.Context, _ runtime.Key) (time.Duration, error) {
			m, err := d.Client.CoreV1().ConfigMaps(metav1.NamespaceSystem).Get(ctx, trackedSince, metav1.GetOptions{})
			if apierrors.IsNotFound(err) {
				return 0, nil // nobody notes who uses what
			}
			if err != nil {
				return 0, err
			}
			since, err := time.Parse(time.DateOnly, m.Data["since"])
			if err != nil {
				return 0, fmt.Errorf("reading since when tokens are tracked: %w", err)
			}
			s := Usage{Since: since, Period: period, Now: time.Now().UTC()}
			if s.Secrets, err = core.Secrets().Lister().List(labels.Everything()); err != nil {
				return 0, err
			}
			if s.Accounts, err = core.ServiceAccounts().Lister().List(labels.Everything()); err != nil {
				return 0, err
			}
			if s.Pods, err = core.Pods().Lister().List(labels.Everything()); err != nil {
				return 0, err
			}
			return 0, give(ctx, d, decideUnused(s))
		},
	}
}

// give marks tokens as no longer valid, and deletes those that have been so for long.
func give(ctx context.Context, d runtime.Deps, p Unused) error {
	for _, s := range p.Invalidate {
		body := fmt.Sprintf(`{"metadata":{"uid":%q,"resourceVersion":%q,"labels":{%q:%q}}}`, s.UID, s.ResourceVersion, invalidLabel, p.Date)
		if _, err := d.Client.CoreV1().Secrets(s.Namespace).Patch(ctx, s.Name, types.MergePatchType, []byte(body), metav1.PatchOptions{}); err != nil && !runtime.LostRace(err) {
			return err
		}
	}
	for _, s := range p.Delete {
		err := d.Client.CoreV1().Secrets(s.Namespace).Delete(ctx, s.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &s.UID, ResourceVersion: &s.ResourceVersion}})
		if err != nil && !runtime.LostRace(err) {
			return err
		}
	}
	return nil
}
