package policy

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"

	v1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"github.com/sextant-k8s/sextant/pkg/apiserver/admission"
	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/pkg/apiserver/match"
)

// Config is what the plugins need of the server.
type Config struct {
	Authz authorizer.UnconditionalAuthorizer
	// Row answers the row that serves a kind, nil if nothing does.
	Row func(gvk schema.GroupVersionKind) *kind.Def
}

// policy is a policy of either kind with its bindings.
type policy[C any] struct {
	name      string
	criteria  *match.Criteria
	paramKind *v1.ParamKind
	ignore    bool // what cannot be evaluated is let through
	bindings  []*binding
	compiled  func() (C, error) // on first need
}

// binding is one use of a policy.
type binding struct {
	name     string
	policy   string
	criteria *match.Criteria // nil = whatever the policy is about
	ref      *v1.ParamRef
	actions  []v1.ValidationAction
}

// catalog are the policies of one kind, read anew when they or their bindings changed.
type catalog[C any] struct {
	policies, bindings schema.GroupResource
	readPolicy         func(kind.Object) (*policy[C], error)
	readBinding        func(kind.Object) (*binding, error)

	mu     sync.Mutex
	known  bool
	counts [2]uint64
	list   []*policy[C]
}

// all answers the policies that are bound, by name.
func (c *catalog[C]) all(ctx context.Context, env kind.Env) ([]*policy[C], error) {
	counts := [2]uint64{env.Changed(c.policies), env.Changed(c.bindings)}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known && counts == c.counts {
		return c.list, nil
	}
	objs, err := env.List(ctx, c.bindings, "")
	if err != nil {
		return nil, err
	}
	bound := map[string][]*binding{}
	for _, o := range objs {
		b, err := c.readBinding(o)
		if err != nil {
			slog.Error("a policy binding cannot be read", "name", o.GetName(), "err", err)
			continue
		}
		bound[b.policy] = append(bound[b.policy], b)
	}
	if objs, err = env.List(ctx, c.policies, ""); err != nil {
		return nil, err
	}
	c.list = nil
	for _, o := range objs {
		bindings := bound[o.GetName()]
		if len(bindings) == 0 {
			continue
		}
		p, err := c.readPolicy(o)
		if err != nil {
			slog.Error("a policy cannot be read", "name", o.GetName(), "err", err)
			continue
		}
		slices.SortFunc(bindings, func(a, b *binding) int { return strings.Compare(a.name, b.name) })
		p.bindings = bindings
		c.list = append(c.list, p)
	}
	slices.SortFunc(c.list, func(a, b *policy[C]) int { return strings.Compare(a.name, b.name) })
	c.known, c.counts = true, counts
	return c.list, nil
}

func newPolicy[C any](name string, k *v1.ParamKind, f *v1.FailurePolicyType, m *v1.MatchResources, compile func() (C, error)) (*policy[C], error) {
	p := &policy[C]{name: name, paramKind: k, ignore: f != nil && *f == v1.Ignore, compiled: sync.OnceValues(compile)}
	var err error
	if m == nil {
		m = &v1.MatchResources{}
	}
	p.criteria, err = criteria(m)
	return p, err
}

func newBinding(name, policy string, ref *v1.ParamRef, m *v1.MatchResources) (*binding, error) {
	b := &binding{name: name, policy: policy, ref: ref}
	var err error
	if m != nil {
		b.criteria, err = criteria(m)
	}
	return b, err
}

func criteria(m *v1.MatchResources) (*match.Criteria, error) {
	return match.NewCriteria(match.Named(m.ResourceRules), match.Named(m.ExcludeResourceRules), m.MatchPolicy, m.NamespaceSelector, m.ObjectSelector)
}

// matches tells whether a binding is about a request that its policy is about.
func (b *binding) matches(ctx context.Context, v *match.View) (bool, error) {
	if b.criteria == nil {
		return true, nil
	}
	ok, _, _, err := b.criteria.Match(ctx, v)
	return ok, err
}

// refusal is a request's refusal with a reason that a policy gave.
func refusal(r *admission.Request, message string, reason metav1.StatusReason) error {
	if reason == "" {
		reason = metav1.StatusReasonInvalid
	}
	name := r.Name
	if name == "" {
		name = "Unknown"
	}
	err := apierrors.NewForbidden(r.Resource.GroupResource(), name, plain(message))
	err.ErrStatus.Reason = reason
	switch reason {
	case metav1.StatusReasonForbidden:
		err.ErrStatus.Code = 403
	case metav1.StatusReasonUnauthorized:
		err.ErrStatus.Code = 401
	case metav1.StatusReasonRequestEntityTooLarge:
		err.ErrStatus.Code = 413
	default:
		err.ErrStatus.Code = 422
	}
	err.ErrStatus.Details.Causes = append(err.ErrStatus.Details.Causes, metav1.StatusCause{Message: message})
	return err
}

// plain is a message as an error.
type plain string

func (p plain) Error() string { return string(p) }
