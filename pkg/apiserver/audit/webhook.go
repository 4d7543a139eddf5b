package audit

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	kwebhook "k8s.io/apiserver/pkg/util/webhook"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/flowcontrol"

	"github.com/sextant-k8s/sextant/staging/api/scheme"
)

// WebhookConfig says which service is told of events.
type WebhookConfig struct {
	ConfigFile     string        // kubeconfig of the service, "" = none
	InitialBackoff time.Duration // before the first repetition
	// QPS and Burst bound how many batches are sent per second; QPS 0 = unbounded.
	QPS      float32
	Burst    int
	Delivery Delivery
	Dial     utilnet.DialFunc // how it is reached; nil = as usual
}

func newWebhook(c WebhookConfig) (*sink, error) {
	s, err := newSink("webhook", c.Delivery)
	if err != nil {
		return nil, err
	}
	config, err := kwebhook.LoadKubeconfig(c.ConfigFile, c.Dial)
	if err != nil {
		return nil, fmt.Errorf("reading --audit-webhook-config-file: %w", err)
	}
	config.QPS = -1
	config.ContentConfig = rest.ContentConfig{
		GroupVersion: &schema.GroupVersion{Group: "audit.k8s.io", Version: "v1"}, NegotiatedSerializer: serializer.NewCodecFactory(scheme.Scheme).WithoutConversion(),
	}
	client, err := rest.UnversionedRESTClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("reading --audit-webhook-config-file: %w", err)
	}
	var slow flowcontrol.RateLimiter
	if c.QPS > 0 {
		slow = flowcontrol.NewTokenBucketRateLimiter(c.QPS, max(c.Burst, 1))
	}
	backoff := kwebhook.DefaultRetryBackoffWithInitialDelay(c.InitialBackoff)
	s.deliver = func(ctx context.Context, lines [][]byte) error {
		if slow != nil {
			if err := slow.Wait(ctx); err != nil {
				return err
			}
		}
		var b bytes.Buffer
		b.WriteString(`{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{},"items":[`)
		b.Write(bytes.Join(lines, []byte(",")))
		b.WriteString("]}")
		return kwebhook.WithExponentialBackoff(ctx, backoff, func() error {
			return client.Post().SetHeader("Content-Type", "application/json").Body(b.Bytes()).Do(ctx).Error()
		}, kwebhook.DefaultShouldRetry)
	}
	return s, nil
}
