package authn

import (
	"context"
	"fmt"
	"time"

	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	kwebhook "k8s.io/apiserver/pkg/util/webhook"
	"k8s.io/apiserver/plugin/pkg/authenticator/token/webhook"
)

// Webhook is a service that is asked whose token it is.
type Webhook struct {
	ConfigFile string // kubeconfig of the service, "" = none
	Version    string // of the TokenReview sent: v1 or v1beta1
	CacheTTL   time.Duration
	Dial       utilnet.DialFunc // how it is reached; nil = as usual
}

func (w *Webhook) open(audiences []string) (authenticator.Token, error) {
	if w.ConfigFile == "" {
		return nil, nil
	}
	if w.Version != "v1" && w.Version != "v1beta1" {
		return nil, fmt.Errorf("--authentication-token-webhook-version %q: give v1 or v1beta1", w.Version)
	}
	config, err := kwebhook.LoadKubeconfig(w.ConfigFile, w.Dial)
	if err != nil {
		return nil, fmt.Errorf("reading --authentication-token-webhook-config-file: %w", err)
	}
	config.QPS = -1
	t, err := webhook.New(config, w.Version, audiences, *webhook.DefaultRetryBackoff())
	if err != nil {
		return nil, fmt.Errorf("--authentication-token-webhook-config-file: %w", err)
	}
	return t, nil
}

// service asks the webhook.
func (a *Authenticator) service(ctx context.Context, token string, audiences []string) (*authenticator.Response, bool, error) {
	if len(audiences) == 0 {
		audiences = a.c.audiences()
	}
	if len(audiences) > 0 {
		ctx = authenticator.WithAudiences(ctx, audiences)
	}
	return a.webhook.AuthenticateToken(ctx, token)
}
