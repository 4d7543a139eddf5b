package authz

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

var (
	clusterRoles        = schema.GroupResource{Group: rbacv1.GroupName, Resource: "clusterroles"}
	clusterRoleBindings = schema.GroupResource{Group: rbacv1.GroupName, Resource: "clusterrolebindings"}
	roles               = schema.GroupResource{Group: rbacv1.GroupName, Resource: "roles"}
	roleBindings        = schema.GroupResource{Group: rbacv1.GroupName, Resource: "rolebindings"}
)

// RBAC allows what roles grant that bindings give to the user.
type RBAC struct {
	env kind.Env

	mu  sync.Mutex // held while compiling
	now atomic.Pointer[grants]
}

// grant is a role's rules as a binding gives them to one subject.
type grant struct {
	rules []rbacv1.PolicyRule
	// why is how a decision is explained, up to the subject: `ClusterRoleBinding "a" of ClusterRole "b"`.
	why   string
	words atomic.Pointer[string] // the whole explanation, once it was asked for
}

// scope is what is granted in a namespace, or cluster wide, by the names of users and groups.
type scope struct {
	users, groups map[string][]*grant
}

// grants is everything granted, by namespace ("" = cluster wide).
type grants struct {
	stamp       [4]uint64 // of the roles and bindings it was made of
	byNamespace map[string]*scope
	broken      []string // bindings whose role does not exist
}

// Authorize looks the user and each of his groups up.
func (r *RBAC) Authorize(ctx context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
	g, err := r.current(ctx)
	if err != nil {
		return authorizer.DecisionNoOpinion, "", err
	}
	u := a.GetUser()
	if u == nil {
		return authorizer.DecisionNoOpinion, "", nil
	}
	var reason string
	g.each(u, a.GetNamespace(), func(gr *grant, group bool, subject string) bool {
		for i := range gr.rules {
			if allows(&gr.rules[i], a) {
				reason = gr.explain(group, subject)
				return false
			}
		}
		return true
	})
	if reason != "" {
		return authorizer.DecisionAllow, reason, nil
	}
	return authorizer.DecisionNoOpinion, "", nil
}

// each calls f with every grant that a user has in a namespace, cluster wide ones first, until f says no.
func (g *grants) each(u user.Info, namespace string, f func(gr *grant, group bool, subject string) bool) {
	for n, ns := range [2]string{"", namespace} {
		s := g.byNamespace[ns]
		if s == nil || n == 1 && ns == "" {
			continue
		}
		for _, gr := range s.users[u.GetName()] {
			if !f(gr, false, u.GetName()) {
				return
			}
		}
		for _, group := range u.GetGroups() {
			for _, gr := range s.groups[group] {
				if !f(gr, true, group) {
					return
				}
			}
		}
	}
}

// explain says why a subject may; the words are made once.
func (g *grant) explain(group bool, subject string) string {
	if w := g.words.Load(); w != nil {
		return *w
	}
	w := "RBAC: allowed by " + g.why + " to " + describe(group, subject)
	g.words.Store(&w)
	return w
}

func describe(group bool, name string) string {
	if group {
		return fmt.Sprintf("Group %q", name)
	}
	if ns, sa, err := serviceaccount.SplitUsername(name); err == nil {
		return fmt.Sprintf("ServiceAccount %q", sa+"/"+ns)
	}
	return fmt.Sprintf("User %q", name)
}

// current answers the compiled grants, compiling them anew if a role or binding changed since.
func (r *RBAC) current(ctx context.Context) (*grants, error) {
	stamp := [4]uint64{r.env.Changed(clusterRoles), r.env.Changed(clusterRoleBindings), r.env.Changed(roles), r.env.Changed(roleBindings)}
	if g := r.now.Load(); g != nil && g.stamp == stamp {
		return g, nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if g := r.now.Load(); g != nil && g.stamp == stamp {
		return g, nil
	}
	g, err := compile(ctx, r.env)
	if err != nil {
		return nil, err
	}
	g.stamp = stamp
	r.now.Store(g)
	return g, nil
}

func compile(ctx context.Context, env kind.Env) (*grants, error) {
	rules := map[string][]rbacv1.PolicyRule{} // by kind and name
	for _, gr := range []schema.GroupResource{clusterRoles, roles} {
		objs, err := env.List(ctx, gr, "")
		if err != nil {
			return nil, err
		}
		for _, o := range objs {
			switch o := o.(type) {
			case *rbacv1.ClusterRole:
				rules["ClusterRole/"+o.Name] = o.Rules
			case *rbacv1.Role:
				rules["Role/"+o.Namespace+"/"+o.Name] = o.Rules
			}
		}
	}
	g := &grants{byNamespace: map[string]*scope{}}
	for _, gr := range []schema.GroupResource{clusterRoleBindings, roleBindings} {
		objs, err := env.List(ctx, gr, "")
		if err != nil {
			return nil, err
		}
		for _, o := range objs {
			switch b := o.(type) {
			case *rbacv1.ClusterRoleBinding:
				g.bind("", "ClusterRoleBinding", b.Name, b.RoleRef, b.Subjects, rules)
			case *rbacv1.RoleBinding:
				g.bind(b.Namespace, "RoleBinding", b.Name, b.RoleRef, b.Subjects, rules)
			}
		}
	}
	return g, nil
}

func (g *grants) bind(ns, kind, name string, ref rbacv1.RoleRef, subjects []rbacv1.Subject, rules map[string][]rbacv1.PolicyRule) {
	key := ref.Kind + "/" + ref.Name
	if ref.Kind == "Role" {
		key = "Role/" + ns + "/" + ref.Name
	}
	rs, ok := rules[key]
	if !ok {
		g.broken = append(g.broken, name)
		return
	}
	where := fmt.Sprintf("%q", name)
	if ns != "" {
		where = fmt.Sprintf("%q", name+"/"+ns)
	}
	why := fmt.Sprintf("%s %s of %s %q", kind, where, ref.Kind, ref.Name)
	give := func(to map[string][]*grant, name string) { to[name] = append(to[name], &grant{rules: rs, why: why}) }
	in := g.byNamespace[ns]
	if in == nil {
		in = &scope{users: map[string][]*grant{}, groups: map[string][]*grant{}}
		g.byNamespace[ns] = in
	}
	for _, s := range subjects {
		switch s.Kind {
		case rbacv1.UserKind:
			give(in.users, s.Name)
		case rbacv1.GroupKind:
			give(in.groups, s.Name)
		case rbacv1.ServiceAccountKind:
			from := s.Namespace
			if from == "" {
				from = ns
			}
			if from != "" {
				give(in.users, serviceaccount.MakeUsername(from, s.Name))
			}
		}
	}
}

// allows tells whether a rule covers a request.
func allows(r *rbacv1.PolicyRule, a authorizer.Attributes) bool {
	if !has(r.Verbs, a.GetVerb()) {
		return false
	}
	if !a.IsResourceRequest() {
		return slices.ContainsFunc(r.NonResourceURLs, func(u string) bool { return urlMatches(u, a.GetPath()) })
	}
	if !has(r.APIGroups, a.GetAPIGroup()) || !resourceMatches(r.Resources, a.GetResource(), a.GetSubresource()) {
		return false
	}
	return len(r.ResourceNames) == 0 || slices.Contains(r.ResourceNames, a.GetName())
}

// has tells whether a list names x or everything.
func has(list []string, x string) bool {
	return slices.ContainsFunc(list, func(s string) bool { return s == x || s == rbacv1.VerbAll })
}

func urlMatches(rule, path string) bool {
	if rule == rbacv1.NonResourceAll || rule == path {
		return true
	}
	prefix, ok := strings.CutSuffix(rule, "*")
	return ok && strings.HasPrefix(path, prefix)
}

// resourceMatches knows "pods", "pods/log", "*/scale" and "*".
func resourceMatches(list []string, resource, sub string) bool {
	full := resource
	if sub != "" {
		full += "/" + sub
	}
	return slices.ContainsFunc(list, func(s string) bool {
		return s == rbacv1.ResourceAll || s == full || sub != "" && s == "*/"+sub
	})
}

// RulesFor answers every rule that a user has in a namespace, cluster wide ones included.
func (r *RBAC) RulesFor(ctx context.Context, u user.Info, namespace string) ([]rbacv1.PolicyRule, error) {
	g, err := r.current(ctx)
	if err != nil {
		return nil, err
	}
	var out []rbacv1.PolicyRule
	g.each(u, namespace, func(gr *grant, _ bool, _ string) bool {
		out = append(out, gr.rules...)
		return true
	})
	return out, nil
}

// role answers a role from the cache, or from etcd if it is so new that the cache has not seen it.
func (r *RBAC) role(ctx context.Context, gr schema.GroupResource, namespace, name string) (kind.Object, error) {
	obj, err := r.env.Get(ctx, gr, namespace, name)
	if apierrors.IsNotFound(err) {
		return r.env.GetFresh(ctx, gr, namespace, name)
	}
	return obj, err
}

// RoleRules answers the rules that a role reference names, as a binding in namespace would see them.
func (r *RBAC) RoleRules(ctx context.Context, ref rbacv1.RoleRef, namespace string) ([]rbacv1.PolicyRule, error) {
	if ref.Kind == "Role" {
		obj, err := r.role(ctx, roles, namespace, ref.Name)
		if err != nil {
			return nil, err
		}
		return obj.(*rbacv1.Role).Rules, nil
	}
	obj, err := r.role(ctx, clusterRoles, "", ref.Name)
	if err != nil {
		return nil, err
	}
	return obj.(*rbacv1.ClusterRole).Rules, nil
}
