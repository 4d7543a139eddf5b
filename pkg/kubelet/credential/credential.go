// Package credential knows what opens registries, and who may use an image that is on the node already.
//
// Flow: before a pull Keyring.For gathers what fits the image: the pod's pull secrets, the node's own docker
// configuration, then what provider plugins answer (asked once for as long as they say) -> the puller tries them in that
// order -> Records.Done writes down which one opened the registry -> when another pod wants the same image,
// Records.May compares what that pod has with what is written. All methods may be called from any goroutine; a provider
// is asked by one at a time.
package credential

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"

	authv1 "k8s.io/api/authentication/v1"
	v1 "k8s.io/api/core/v1"
	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"

	"github.com/sextant-k8s/sextant/pkg/kubelet/metrics"
)

// Objects reads what belongs to service accounts.
type Objects interface {
	Token(ctx context.Context, namespace, account string, req *authv1.TokenRequest) (*authv1.TokenRequest, error)
	ServiceAccount(ctx context.Context, namespace, name string) (*v1.ServiceAccount, error)
}

// Credential opens a registry. One with neither Secret nor Account is the node's own, which all its pods may use.
type Credential struct {
	Username, Password string
	// Secret is the pull secret it came from.
	Secret *kubeletv1beta1.ImagePullSecret
	// Account is the service account whose token a provider turned into it.
	Account *kubeletv1beta1.ImagePullServiceAccount
}

// own tells whether the credential is the node's.
func (c Credential) own() bool { return c.Secret == nil && c.Account == nil }

// hash names a user and password without telling them.
func (c Credential) hash() string {
	raw, err := json.Marshal(struct {
		Username string `json:"username,omitempty"`
		Password string `json:"password,omitempty"`
	}{c.Username, c.Password})
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:])
}

// Config is what a Keyring works with.
type Config struct {
	// Path is a CredentialProviderConfig or a folder of such, Bin where its programs lie; both are empty without providers.
	Path, Bin string
	// Docker are files of docker's kind with the node's own credentials; those which are not there are passed over.
	Docker  []string
	Objects Objects
	Log     *slog.Logger
	// Metrics may be nil.
	Metrics *metrics.Set
}

// Keyring finds what opens an image's registry.
type Keyring struct {
	cfg       Config
	providers []*provider
}

// NewKeyring reads the providers' configuration; one that cannot work is refused, with what is wrong about it.
func NewKeyring(cfg Config) (*Keyring, error) {
	providers, err := load(cfg)
	if err != nil {
		return nil, err
	}
	return &Keyring{cfg: cfg, providers: providers}, nil
}

// For lists what fits the image, the best first. A provider that fails is logged, and the others count.
func (k *Keyring) For(ctx context.Context, pod *v1.Pod, image string, secrets []*v1.Secret) []Credential {
	var out []Credential
	add := func(c Credential) {
		if !slices.ContainsFunc(out, func(o Credential) bool { return o.hash() == c.hash() && o.own() == c.own() }) {
			out = append(out, c)
		}
	}
	var fromSecrets []entry
	for _, s := range secrets {
		for _, e := range secretEntries(s) {
			e.cred.Secret = &kubeletv1beta1.ImagePullSecret{UID: string(s.UID), Namespace: s.Namespace, Name: s.Name, CredentialHash: e.cred.hash()}
			fromSecrets = append(fromSecrets, e)
		}
	}
	for _, e := range fitting(fromSecrets, image) {
		add(e.cred)
	}
	for _, e := range fitting(k.node(), image) {
		add(e.cred)
	}
	for _, p := range k.providers {
		if !p.serves(image) {
			continue
		}
		entries, err := p.ask(ctx, pod, full(image))
		if err != nil {
			k.cfg.Log.Warn("asking a credential provider", "provider", p.cfg.Name, "image", image, "err", err)
			continue
		}
		for _, e := range fitting(entries, image) {
			add(e.cred)
		}
	}
	return out
}

// String tells nobody the password.
func (c Credential) String() string {
	switch {
	case c.Secret != nil:
		return fmt.Sprintf("secret %s/%s", c.Secret.Namespace, c.Secret.Name)
	case c.Account != nil:
		return fmt.Sprintf("service account %s/%s", c.Account.Namespace, c.Account.Name)
	}
	return "the node's"
}
