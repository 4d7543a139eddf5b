// Package audit writes down who asked for what and what came of it.
//
// The flow: Begin asks the policy at which level a request counts and opens its Trail; who serves the request tells the
// Trail facts (who is impersonated, what was decided, which object), the answer passes through it; each stage that the
// policy does not omit becomes one line of JSON, which is handed to every sink. A sink has a bounded queue and a goroutine
// of its own: a full disk or a deaf webhook costs events, which are counted, and never a request (modes blocking and
// blocking-strict wait for it, as their names say). Bodies are only ever kept at the levels Request and RequestResponse.
// A Room is shared by all requests; a Trail belongs to one and guards itself.
package audit

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
	kaudit "k8s.io/apiserver/pkg/audit"
	"k8s.io/apiserver/pkg/audit/policy"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

// Config says what is written where.
type Config struct {
	PolicyFile string // "" = nothing is audited
	Log        LogConfig
	Webhook    WebhookConfig

	throttle *bool // whether the webhook's QPS counts; nil = yes
}

// Room decides what is written.
type Room struct {
	rules kaudit.PolicyRuleEvaluator
	sinks []*sink
}

// New reads the policy; the answer is nil if nothing is to be audited.
func New(c Config) (*Room, error) {
	if c.PolicyFile == "" {
		if c.Log.Path != "" || c.Webhook.ConfigFile != "" {
			return nil, errors.New("--audit-policy-file is missing: without a policy nothing is audited")
		}
		return nil, nil
	}
	p, err := policy.LoadPolicyFromFile(c.PolicyFile)
	if err != nil {
		return nil, fmt.Errorf("reading --audit-policy-file: %w", err)
	}
	r := &Room{rules: policy.NewPolicyRuleEvaluator(p)}
	if c.Log.Path != "" {
		s, err := newLog(c.Log)
		if err != nil {
			return nil, err
		}
		r.sinks = append(r.sinks, s)
	}
	if c.Webhook.ConfigFile != "" {
		if c.throttle != nil && !*c.throttle {
			c.Webhook.QPS = 0
		}
		s, err := newWebhook(c.Webhook)
		if err != nil {
			return nil, err
		}
		r.sinks = append(r.sinks, s)
	}
	if len(r.sinks) == 0 {
		return nil, nil
	}
	return r, nil
}

// Run delivers events until ctx ends, then what is left.
func (r *Room) Run(ctx context.Context) error {
	if r == nil {
		<-ctx.Done()
		return nil
	}
	done := make(chan struct{})
	for _, s := range r.sinks {
		go func() {
			s.run(ctx)
			done <- struct{}{}
		}()
	}
	for range r.sinks {
		<-done
	}
	return nil
}

// Begin opens the trail of a request, nil if the policy does not want it. attributes hold who asked, nil if nobody knows.
func (r *Room) Begin(req *http.Request, id string, begun time.Time, a authorizer.AttributesRecord, longRunning bool) *Trail {
	if r == nil {
		return nil
	}
	how := r.rules.EvaluatePolicyRule(a)
	level := auditv1.Level(how.Level)
	if level == auditv1.LevelNone {
		return nil
	}
	t := &Trail{room: r, how: how, long: longRunning, rich: level == auditv1.LevelRequest || level == auditv1.LevelRequestResponse}
	t.event(req, id, begun, a)
	if t.rich && req.Body != nil && a.ResourceRequest {
		t.sent = &taken{}
		t.sentAs = req.Header.Get("Content-Type")
		req.Body = &tee{req.Body, t.sent}
	}
	return t
}

func (t *Trail) omits(stage auditv1.Stage) bool {
	return slices.ContainsFunc(t.how.OmitStages, func(s auditStage) bool { return string(s) == string(stage) })
}
