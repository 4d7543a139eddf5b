package webhook

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission/plugin/webhook/matchconditions"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/pkg/apiserver/match"
)

// hook is one webhook of a configuration, read once.
type hook struct {
	id, name    string // id is unique among all, name is the webhook's own
	target      Target
	criteria    *match.Criteria
	conditions  func() matchconditions.Matcher // nil if there are none
	versions    []string
	sideEffects *admissionregistrationv1.SideEffectClass
	timeout     int32 // seconds
	ignore      bool  // what fails is let through
	again       bool  // to be asked again after others changed the object
}

// newHook reads what both kinds of webhooks have in common.
func newHook(configuration string, w *admissionregistrationv1.ValidatingWebhook, matcherKind string) (*hook, error) {
	h := &hook{
		id: configuration + "/" + w.Name, name: w.Name, versions: w.AdmissionReviewVersions, sideEffects: w.SideEffects, timeout: 10,
		ignore: w.FailurePolicy != nil && *w.FailurePolicy == admissionregistrationv1.Ignore,
	}
	if w.TimeoutSeconds != nil {
		h.timeout = *w.TimeoutSeconds
	}
	h.target.CABundle = w.ClientConfig.CABundle
	if c := w.ClientConfig; c.URL != nil {
		h.target.URL = *c.URL
	} else if s := c.Service; s != nil {
		h.target.Namespace, h.target.Name, h.target.Port = s.Namespace, s.Name, 443
		if s.Port != nil {
			h.target.Port = *s.Port
		}
		if s.Path != nil {
			h.target.SubPath = *s.Path
		}
	}
	var err error
	h.criteria, err = match.NewCriteria(match.Plain(w.Rules), nil, w.MatchPolicy, w.NamespaceSelector, w.ObjectSelector)
	if err != nil {
		return nil, fmt.Errorf("reading the selectors of webhook %s: %w", h.id, err)
	}
	if len(h.criteria.Rules) == 0 {
		h.criteria.Rules = []match.Rule{{}} // none matches nothing
	}
	if len(w.MatchConditions) > 0 {
		conditions, policy := w.MatchConditions, w.FailurePolicy
		h.conditions = sync.OnceValue(func() matchconditions.Matcher {
			return matchconditions.NewMatcher(match.Conditions(conditions), policy, "webhook", matcherKind, w.Name)
		})
	}
	return h, nil
}

// configuration is the name of the configuration that the webhook stands in.
func (h *hook) configuration() string { return strings.TrimSuffix(h.id, "/"+h.name) }

// configured are the webhooks of one kind, read anew when the configurations changed.
type configured struct {
	gr   schema.GroupResource
	read func(obj kind.Object) ([]*hook, error)

	mu    sync.Mutex
	known bool
	count uint64
	hooks []*hook
}

// all answers the webhooks in order of their configurations' names.
func (c *configured) all(ctx context.Context, env kind.Env) ([]*hook, error) {
	count := env.Changed(c.gr) // before the list: what comes later changes it again
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known && c.count == count {
		return c.hooks, nil
	}
	objs, err := env.List(ctx, c.gr, "")
	if err != nil {
		return nil, err
	}
	slices.SortFunc(objs, func(a, b kind.Object) int {
		if a.GetName() < b.GetName() {
			return -1
		}
		return 1
	})
	c.hooks = nil
	for _, o := range objs {
		hooks, err := c.read(o)
		if err != nil {
			slog.Error("a webhook configuration cannot be read", "name", o.GetName(), "err", err)
			continue
		}
		c.hooks = append(c.hooks, hooks...)
	}
	c.known, c.count = true, count
	return c.hooks, nil
}

func readValidating(obj kind.Object) (out []*hook, err error) {
	c := obj.(*admissionregistrationv1.ValidatingWebhookConfiguration)
	for i := range c.Webhooks {
		h, err := newHook(c.Name, &c.Webhooks[i], "validating")
		if err != nil {
			return nil, err
		}
		out = append(out, h)
	}
	return out, nil
}

func readMutating(obj kind.Object) (out []*hook, err error) {
	c := obj.(*admissionregistrationv1.MutatingWebhookConfiguration)
	for _, w := range c.Webhooks {
		h, err := newHook(c.Name, &admissionregistrationv1.ValidatingWebhook{
			Name: w.Name, ClientConfig: w.ClientConfig, Rules: w.Rules, FailurePolicy: w.FailurePolicy, MatchPolicy: w.MatchPolicy, NamespaceSelector: w.NamespaceSelector,
			ObjectSelector: w.ObjectSelector, SideEffects: w.SideEffects, TimeoutSeconds: w.TimeoutSeconds, AdmissionReviewVersions: w.AdmissionReviewVersions, MatchConditions: w.MatchConditions,
		}, "mutating")
		if err != nil {
			return nil, err
		}
		h.again = w.ReinvocationPolicy != nil && *w.ReinvocationPolicy == admissionregistrationv1.IfNeededReinvocationPolicy
		out = append(out, h)
	}
	return out, nil
}
