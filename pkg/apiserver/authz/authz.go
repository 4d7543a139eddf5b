// Package authz answers whether a user may do what a request asks.
//
// The flow: an ordered list of authorizers, each allowing, denying or having no opinion; the first opinion counts, none
// is a no. RBAC reads roles and bindings through the server's own cache and keeps them compiled per subject until one of
// them changes; Node asks which pods a kubelet runs. Authorizers are called from all requests at once; the compiled
// roles are replaced whole, never changed.
package authz

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

// Chain is authorizers in the order they are asked.
type Chain struct {
	steps []authorizer.UnconditionalAuthorizer
	rbac  *RBAC // nil if not among them
}

// New makes the authorizers of the modes: AlwaysAllow, AlwaysDeny, Node, RBAC.
func New(modes []string, env kind.Env) (*Chain, error) {
	c := &Chain{steps: []authorizer.UnconditionalAuthorizer{masters{}}}
	for _, m := range modes {
		switch m {
		case "AlwaysAllow":
			c.steps = append(c.steps, always(authorizer.DecisionAllow))
		case "AlwaysDeny":
			c.steps = append(c.steps, always(authorizer.DecisionNoOpinion))
		case "Node":
			c.steps = append(c.steps, &Node{env: env})
		case "RBAC":
			c.rbac = &RBAC{env: env}
			c.steps = append(c.steps, c.rbac)
		default:
			return nil, fmt.Errorf("--authorization-mode %q is not known: use AlwaysAllow, AlwaysDeny, Node or RBAC", m)
		}
	}
	return c, nil
}

// Authorize asks each authorizer in turn.
func (c *Chain) Authorize(ctx context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
	var reasons []string
	var errs []string
	for _, s := range c.steps {
		d, reason, err := s.Authorize(ctx, a)
		if err != nil {
			errs = append(errs, err.Error())
		}
		if d != authorizer.DecisionNoOpinion {
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

// RBAC answers the role based authorizer, nil if the modes have none.
func (c *Chain) RBAC() *RBAC { return c.rbac }

// masters lets the cluster's owners do everything.
type masters struct{}

func (masters) Authorize(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
	if u := a.GetUser(); u != nil && slices.Contains(u.GetGroups(), user.SystemPrivilegedGroup) {
		return authorizer.DecisionAllow, "", nil
	}
	return authorizer.DecisionNoOpinion, "", nil
}

type always authorizer.Decision

func (d always) Authorize(context.Context, authorizer.Attributes) (authorizer.Decision, string, error) {
	if authorizer.Decision(d) == authorizer.DecisionAllow {
		return authorizer.DecisionAllow, "", nil
	}
	return authorizer.DecisionNoOpinion, "Everything is forbidden.", nil
}
