package credential

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	authv1 "k8s.io/api/authentication/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubeletv1 "k8s.io/kubelet/config/v1"
	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"
	wire "k8s.io/kubelet/pkg/apis/credentialprovider/v1"

	"github.com/sextant-k8s/sextant/pkg/kubelet/metrics"
)

// versions are those of the plugin's protocol, which differ in name only.
var versions = []string{"credentialprovider.kubelet.k8s.io/v1", "credentialprovider.kubelet.k8s.io/v1beta1", "credentialprovider.kubelet.k8s.io/v1alpha1"}

const (
	// patience bounds one run of a plugin.
	patience = time.Minute
	// answerMost is how much a plugin may say.
	answerMost = 1 << 20
	// cacheMost is from how many kept answers on those that are too old are looked for.
	cacheMost = 256
)

// provider is one plugin, and what it answered.
type provider struct {
	cfg     kubeletv1.CredentialProvider
	program string
	objects Objects
	metrics *metrics.Set

	// asking is held while the plugin runs: who comes meanwhile finds its answer kept.
	asking sync.Mutex

	mu     sync.Mutex
	kept   map[string]kept
	tokens map[string]issued
}

type kept struct {
	entries []entry
	until   time.Time
}

type issued struct {
	token string
	renew time.Time
}

func newProvider(cfg kubeletv1.CredentialProvider, program string, objects Objects, m *metrics.Set) *provider {
	return &provider{cfg: cfg, program: program, objects: objects, metrics: m, kept: map[string]kept{}, tokens: map[string]issued{}}
}

func (p *provider) serves(image string) bool {
	return slices.ContainsFunc(p.cfg.MatchImages, func(m string) bool { return parse(m).fits(parse(full(image))) })
}

// bearer is whose token goes to the plugin; the zero value sends none.
type bearer struct {
	account     *kubeletv1beta1.ImagePullServiceAccount
	token       string
	annotations map[string]string
	// key tells bearers apart in the cache.
	key string
}

// ask answers what the plugin says of an image's repository, or said not long ago.
func (p *provider) ask(ctx context.Context, pod *v1.Pod, image string) ([]entry, error) {
	b, ok, err := p.bearer(ctx, pod)
	if err != nil || !ok {
		return nil, err
	}
	if e, ok := p.remembered(image, b); ok {
		return e, nil
	}
	p.asking.Lock()
	defer p.asking.Unlock()
	if e, ok := p.remembered(image, b); ok {
		return e, nil
	}
	begun := time.Now()
	answer, err := p.run(ctx, &wire.CredentialProviderRequest{TypeMeta: metav1.TypeMeta{Kind: "CredentialProviderRequest", APIVersion: p.cfg.APIVersion},
		Image: image, ServiceAccountToken: b.token, ServiceAccountAnnotations: b.annotations})
	p.metrics.Opened(p.cfg.Name, time.Since(begun), err)
	if err != nil {
		return nil, err
	}
	var out []entry
	for pattern, a := range answer.Auth {
		out = append(out, entry{pattern, Credential{Username: a.Username, Password: a.Password, Account: b.account}})
	}
	var key string
	switch answer.CacheKeyType {
	case wire.ImagePluginCacheKeyType:
		key = imageKey(image, b)
	case wire.RegistryPluginCacheKeyType:
		key = registryKey(image, b)
	case wire.GlobalPluginCacheKeyType:
		key = globalKey(b)
	default:
		return nil, fmt.Errorf("the answer's cacheKeyType is %q: want Image, Registry or Global", answer.CacheKeyType)
	}
	lasts := p.cfg.DefaultCacheDuration.Duration
	if answer.CacheDuration != nil {
		lasts = answer.CacheDuration.Duration
	}
	if lasts > 0 {
		p.keep(key, kept{out, time.Now().Add(lasts)})
	}
	return out, nil
}

func imageKey(image string, b bearer) string    { return "image " + image + " " + b.key }
func registryKey(image string, b bearer) string { return "registry " + registry(image) + " " + b.key }
func globalKey(b bearer) string                 { return "global " + b.key }

func (p *provider) remembered(image string, b bearer) ([]entry, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, key := range []string{imageKey(image, b), registryKey(image, b), globalKey(b)} {
		if k, ok := p.kept[key]; ok && time.Now().Before(k.until) {
			return k.entries, true
		}
	}
	return nil, false
}

func (p *provider) keep(key string, k kept) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.kept) >= cacheMost {
		for old, v := range p.kept {
			if !time.Now().Before(v.until) {
				delete(p.kept, old)
			}
		}
	}
	p.kept[key] = k
}

// run starts the plugin once: the request goes to its standard input, the answer comes from its standard output.
func (p *provider) run(ctx context.Context, req *wire.CredentialProviderRequest) (*wire.CredentialProviderResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	in, err := json.Marshal(req)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, p.program, p.cfg.Args...)
	cmd.WaitDelay = time.Second
	cmd.Env = os.Environ()
	for _, e := range p.cfg.Env {
		cmd.Env = append(cmd.Env, e.Name+"="+e.Value)
	}
	out, said := &bounded{most: answerMost}, &bounded{most: 1 << 10}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(in), out, said
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = fmt.Errorf("it did not answer in time: %w", ctx.Err())
		}
		return nil, fmt.Errorf("running %s: %w: %s", p.program, err, strings.TrimSpace(said.String()))
	}
	var answer wire.CredentialProviderResponse
	if err := json.Unmarshal(out.Bytes(), &answer); err != nil {
		// What it printed may be a secret.
		return nil, errors.New("the answer is not a CredentialProviderResponse")
	}
	if answer.Kind != "CredentialProviderResponse" || answer.APIVersion != p.cfg.APIVersion {
		return nil, fmt.Errorf("the answer is a %q of %q: want a CredentialProviderResponse of %s", answer.Kind, answer.APIVersion, p.cfg.APIVersion)
	}
	return &answer, nil
}

// bounded keeps the first bytes of what is written to it.
type bounded struct {
	bytes.Buffer
	most int
}

// Write keeps what fits.
func (b *bounded) Write(p []byte) (int, error) {
	b.Buffer.Write(p[:min(len(p), max(0, b.most-b.Len()))])
	return len(p), nil
}

// bearer is the pod's service account, where the plugin wants it. It answers false when the plugin is not for this pod.
func (p *provider) bearer(ctx context.Context, pod *v1.Pod) (bearer, bool, error) {
	t := p.cfg.TokenAttributes
	if t == nil {
		return bearer{}, true, nil
	}
	name := pod.Spec.ServiceAccountName
	if name == "" {
		return bearer{}, !*t.RequireServiceAccount, nil
	}
	sa, err := p.objects.ServiceAccount(ctx, pod.Namespace, name)
	if err != nil {
		return bearer{}, false, fmt.Errorf("reading service account %s/%s: %w", pod.Namespace, name, err)
	}
	b := bearer{account: &kubeletv1beta1.ImagePullServiceAccount{UID: string(sa.UID), Namespace: sa.Namespace, Name: sa.Name}, annotations: map[string]string{}}
	for _, key := range t.RequiredServiceAccountAnnotationKeys {
		v, ok := sa.Annotations[key]
		if !ok {
			return bearer{}, false, fmt.Errorf("service account %s/%s has no annotation %s, which the provider requires", sa.Namespace, sa.Name, key)
		}
		b.annotations[key] = v
	}
	for _, key := range t.OptionalServiceAccountAnnotationKeys {
		if v, ok := sa.Annotations[key]; ok {
			b.annotations[key] = v
		}
	}
	if b.token, err = p.token(ctx, pod, t.ServiceAccountTokenAudience); err != nil {
		return bearer{}, false, err
	}
	who := []any{b.account, b.annotations}
	if t.CacheType == kubeletv1.TokenServiceAccountTokenCacheType {
		who = append(who, b.token)
	}
	raw, err := json.Marshal(who)
	b.key = fmt.Sprintf("%x", sha256.Sum256(raw))
	return b, err == nil, err
}

// token is one of the pod's account for the plugin's audience, bound to the pod; it is kept for most of its life.
func (p *provider) token(ctx context.Context, pod *v1.Pod, audience string) (string, error) {
	key := string(pod.UID)
	p.mu.Lock()
	t, ok := p.tokens[key]
	p.mu.Unlock()
	if ok && time.Now().Before(t.renew) {
		return t.token, nil
	}
	got, err := p.objects.Token(ctx, pod.Namespace, pod.Spec.ServiceAccountName, &authv1.TokenRequest{Spec: authv1.TokenRequestSpec{Audiences: []string{audience},
		BoundObjectRef: &authv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID}}})
	if err != nil {
		return "", fmt.Errorf("asking for a token of service account %s/%s: %w", pod.Namespace, pod.Spec.ServiceAccountName, err)
	}
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.tokens) >= cacheMost {
		for old, v := range p.tokens {
			if !now.Before(v.renew) {
				delete(p.tokens, old)
			}
		}
	}
	p.tokens[key] = issued{got.Status.Token, now.Add(got.Status.ExpirationTimestamp.Sub(now) * 4 / 5)}
	return got.Status.Token, nil
}
