package authz

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/apiserver/pkg/apis/apiserver/load"
	"k8s.io/apiserver/pkg/apis/apiserver/validation"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	authzcel "k8s.io/apiserver/pkg/authorization/cel"
	kwebhook "k8s.io/apiserver/pkg/util/webhook"
	"k8s.io/apiserver/plugin/pkg/authorizer/webhook"
	"k8s.io/apiserver/plugin/pkg/authorizer/webhook/metrics"
	"k8s.io/client-go/rest"
)

// Webhook is the service of the mode Webhook.
type Webhook struct {
	ConfigFile                     string // kubeconfig of the service
	Version                        string // of the SubjectAccessReview sent: v1 or v1beta1
	AuthorizedTTL, UnauthorizedTTL time.Duration
}

var known = []string{"ABAC", "AlwaysAllow", "AlwaysDeny", "Node", "RBAC", "Webhook"}

// structured is the configuration that the flags stand for.
func (c *Config) structured() (*apiserver.AuthorizationConfiguration, error) {
	conf := &apiserver.AuthorizationConfiguration{}
	if c.PolicyFile != "" && !slices.Contains(c.Modes, "ABAC") {
		return nil, errors.New("--authorization-policy-file needs --authorization-mode ABAC")
	}
	for _, m := range c.Modes {
		if !slices.Contains(known, m) {
			return nil, fmt.Errorf("--authorization-mode %q is not known: use ABAC, AlwaysAllow, AlwaysDeny, Node, RBAC or Webhook", m)
		}
		a := apiserver.AuthorizerConfiguration{Type: apiserver.AuthorizerType(m), Name: "default"}
		if m == "Webhook" {
			if c.Webhook.ConfigFile == "" {
				return nil, errors.New("--authorization-mode Webhook needs --authorization-webhook-config-file")
			}
			a.Webhook = &apiserver.WebhookConfiguration{
				AuthorizedTTL: metav1.Duration{Duration: c.Webhook.AuthorizedTTL}, CacheAuthorizedRequests: true,
				UnauthorizedTTL: metav1.Duration{Duration: c.Webhook.UnauthorizedTTL}, CacheUnauthorizedRequests: true,
				Timeout: metav1.Duration{Duration: 30 * time.Second}, FailurePolicy: apiserver.FailurePolicyNoOpinion,
				SubjectAccessReviewVersion: c.Webhook.Version,
				ConnectionInfo:             apiserver.WebhookConnectionInfo{Type: apiserver.AuthorizationWebhookConnectionInfoTypeKubeConfigFile, KubeConfigFile: &c.Webhook.ConfigFile},
			}
		}
		conf.Authorizers = append(conf.Authorizers, a)
	}
	return conf, nil
}

// read takes the file over if it changed.
func (c *Chain) read() (changed bool, err error) {
	data, err := os.ReadFile(c.c.File)
	if err != nil {
		return false, err
	}
	sum := sha256.Sum256(data)
	if was := c.now.Load(); was != nil && was.sum == sum {
		return false, nil
	}
	if len(bytes.TrimSpace(data)) == 0 {
		return false, fmt.Errorf("%s is empty", c.c.File)
	}
	conf, err := load.LoadFromData(data)
	if err != nil {
		return false, fmt.Errorf("%s: %w", c.c.File, err)
	}
	if err := validation.ValidateAuthorizationConfiguration(authzcel.NewDefaultCompiler(), nil, conf, sets.New(known...), sets.New("Webhook")).ToAggregate(); err != nil {
		return false, fmt.Errorf("%s: %w", c.c.File, err)
	}
	l, err := c.build(conf)
	if err != nil {
		return false, fmt.Errorf("%s: %w", c.c.File, err)
	}
	l.sum = sum
	c.now.Store(l)
	return true, nil
}

// Run follows the file until ctx ends. A wrong one is told of and changes nothing.
func (c *Chain) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(5 * time.Second):
		}
		if c.c.File == "" {
			continue
		}
		switch changed, err := c.read(); {
		case err != nil:
			slog.Error("the authorization configuration is not taken over", "file", c.c.File, "err", err)
		case changed:
			slog.Info("the authorization configuration was taken over", "file", c.c.File)
		}
	}
}

// build makes the authorizers; the cluster's owners come before all of them.
func (c *Chain) build(conf *apiserver.AuthorizationConfiguration) (*list, error) {
	l := &list{steps: []counted{{UnconditionalAuthorizer: masters{}}}}
	for _, a := range conf.Authorizers {
		add := func(x authorizer.UnconditionalAuthorizer) {
			l.steps = append(l.steps, counting(x, string(a.Type), a.Name))
		}
		switch a.Type {
		case "AlwaysAllow":
			l.rules = append(l.rules, allRules)
			add(always(authorizer.DecisionAllow))
		case "AlwaysDeny":
			add(always(authorizer.DecisionNoOpinion))
		case "ABAC":
			if c.c.PolicyFile == "" {
				return nil, errors.New("the mode ABAC needs --authorization-policy-file")
			}
			policies, err := openABAC(c.c.PolicyFile)
			if err != nil {
				return nil, err
			}
			l.rules = append(l.rules, policies.RulesFor)
			add(policies)
		case "Node":
			add(&Node{env: c.c.Env})
		case "RBAC":
			l.rbac = true
			l.rules = append(l.rules, c.rbac.RulesFor)
			add(c.rbac)
		case apiserver.TypeWebhook:
			w, err := service(a.Name, a.Webhook, c.c.Dial)
			if err != nil {
				return nil, err
			}
			add(w)
		}
	}
	return l, nil
}

// service makes the authorizer that asks a webhook, which dial reaches (nil = as usual).
func service(name string, w *apiserver.WebhookConfiguration, dial utilnet.DialFunc) (authorizer.UnconditionalAuthorizer, error) {
	var config *rest.Config
	var err error
	switch w.ConnectionInfo.Type {
	case apiserver.AuthorizationWebhookConnectionInfoTypeInCluster:
		if config, err = rest.InClusterConfig(); err == nil && dial != nil {
			config.Dial = dial
		}
	default:
		config, err = kwebhook.LoadKubeconfig(*w.ConnectionInfo.KubeConfigFile, dial)
	}
	if err != nil {
		return nil, fmt.Errorf("the webhook %s: %w", name, err)
	}
	config.QPS, config.Timeout = -1, w.Timeout.Duration
	yes, no := w.AuthorizedTTL.Duration, w.UnauthorizedTTL.Duration
	if !w.CacheAuthorizedRequests {
		yes = 0
	}
	if !w.CacheUnauthorizedRequests {
		no = 0
	}
	onError := authorizer.DecisionNoOpinion
	if w.FailurePolicy == apiserver.FailurePolicyDeny {
		onError = authorizer.DecisionDeny
	}
	a, err := webhook.New(config, w.SubjectAccessReviewVersion, yes, no, *webhook.DefaultRetryBackoff(), onError, w.MatchConditions, name, metrics.NoopAuthorizerMetrics{}, authzcel.NewDefaultCompiler())
	if err != nil {
		return nil, fmt.Errorf("the webhook %s: %w", name, err)
	}
	return a, nil
}
