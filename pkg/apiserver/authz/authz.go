// Package authz answers whether a user may do what a request asks.
//
// The flow: an ordered list of authorizers, each allowing, denying or having no opinion; the first opinion counts, none
// is a no. The list comes from flags or from a file that is followed while the server runs. RBAC reads roles and bindings through the server's own cache and keeps them compiled per subject until one of
// them changes; Node asks which pods a kubelet runs. Authorizers are called from all requests at once; the list and
// the compiled roles are replaced whole, never changed.
package authz

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

// Chain is authorizers in the order they are asked.
type Chain struct {
	c    Config
	now  atomic.Pointer[list]
	rbac *RBAC // among those that are asked or not
}

// list is authorizers as one reading of the configuration has them.
type list struct {
	sum   [32]byte
	rbac  bool // RBAC is among them
	steps []counted
	rules []rulesOf // of those that can tell
}

// rulesOf answers the rules of a user in a namespace, cluster wide ones included.
type rulesOf func(ctx context.Context, u user.Info, namespace string) ([]rbacv1.PolicyRule, error)

// Config says who is asked.
type Config struct {
	Env     kind.Env
	Modes   []string // ABAC, AlwaysAllow, AlwaysDeny, Node, RBAC, Webhook
	File    string   // AuthorizationConfiguration in place of Modes, "" = none
	Webhook Webhook  // of the mode
	// PolicyFile holds the policies of the mode ABAC.
	PolicyFile string
	// Dial, if set, is how webhooks are reached.
	Dial utilnet.DialFunc
}

// New makes the authorizers of the modes.
func New(modes []string, env kind.Env) (*Chain, error) { return Open(Config{Env: env, Modes: modes}) }

// Open makes the authorizers of a configuration.
func Open(c Config) (*Chain, error) {
	chain := &Chain{c: c, rbac: &RBAC{env: c.Env}}
	if c.File != "" {
		if _, err := chain.read(); err != nil {
			return nil, fmt.Errorf("reading --authorization-config: %w", err)
		}
		return chain, nil
	}
	conf, err := c.structured()
	if err != nil {
		return nil, err
	}
	l, err := chain.build(conf)
	if err != nil {
		return nil, fmt.Errorf("--authorization-mode: %w", err)
	}
	chain.now.Store(l)
	return chain, nil
}

// Authorize asks each authorizer in turn.
func (c *Chain) Authorize(ctx context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
	begun := time.Now()
	d, reason, err := c.ask(ctx, a)
	count(d, err, begun)
	return d, reason, err
}

func (c *Chain) ask(ctx context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
	var reasons []string
	var errs []string
	for _, s := range c.now.Load().steps {
		d, reason, err := s.Authorize(ctx, a)
		if err != nil {
			errs = append(errs, err.Error())
		}
		if d != authorizer.DecisionNoOpinion {
			s.tell(d)
			return d, reason, err
		}
		if reason != "" {
			reasons = append(reasons, reason)
		}
	}
	var err error
	if len(errs) > 0 {
		err = fmt.Errorf("%s", strings.Join(errs, "; "))
	}
	return authorizer.DecisionNoOpinion, strings.Join(reasons, "\n"), err
}

// RBAC answers the role based authorizer, nil if it is not asked at present.
func (c *Chain) RBAC() *RBAC {
	if now := c.now.Load(); now == nil || !now.rbac {
		return nil
	}
	return c.rbac
}

// RulesFor answers the rules of all authorizers that can list theirs.
func (c *Chain) RulesFor(ctx context.Context, u user.Info, namespace string) ([]rbacv1.PolicyRule, error) {
	now := c.now.Load()
	if len(now.rules) == 0 {
		return nil, errors.New("no authorizer of this server can list rules")
	}
	var out []rbacv1.PolicyRule
	var errs []error
	for _, of := range now.rules {
		rules, err := of(ctx, u, namespace)
		out, errs = append(out, rules...), append(errs, err)
	}
	return out, errors.Join(errs...)
}

// masters lets the cluster's owners do everything.
type masters struct{}

func (masters) Authorize(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
	if u := a.GetUser(); u != nil && slices.Contains(u.GetGroups(), user.SystemPrivilegedGroup) {
		return authorizer.DecisionAllow, "", nil
	}
	return authorizer.DecisionNoOpinion, "", nil
}

type always authorizer.Decision

// allRules are the rules where everything is allowed.
func allRules(context.Context, user.Info, string) ([]rbacv1.PolicyRule, error) {
	all := []string{every}
	return []rbacv1.PolicyRule{{Verbs: all, APIGroups: all, Resources: all}, {Verbs: all, NonResourceURLs: all}}, nil
}

func (d always) Authorize(context.Context, authorizer.Attributes) (authorizer.Decision, string, error) {
	if authorizer.Decision(d) == authorizer.DecisionAllow {
		return authorizer.DecisionAllow, "", nil
	}
	return authorizer.DecisionNoOpinion, "Everything is forbidden.", nil
}
