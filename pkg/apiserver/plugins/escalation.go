package plugins

import (
	"context"
	"fmt"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/component-helpers/auth/rbac/validation"

	"github.com/sextant-k8s/sextant/pkg/apiserver/admission"
	"github.com/sextant-k8s/sextant/pkg/apiserver/authz"
)

// Escalation lets nobody grant what he does not have himself, unless he may escalate or bind. It has no name: upstream has no plugin
// for it either, so no flag leaves it out.
func Escalation(chain *authz.Chain) admission.Plugin {
	return admission.Plugin{Validate: func(ctx context.Context, r *admission.Request) error {
		if r.User == nil || r.Verb != admission.Create && r.Verb != admission.Update {
			return nil
		}
		roles := chain.RBAC()
		if roles == nil {
			return nil
		}
		if slices.Contains(r.User.GetGroups(), user.SystemPrivilegedGroup) {
			return nil // the cluster's owners hold everything, also what is granted by a role that does not exist yet
		}
		verb, rules, ns, name, err := granted(ctx, roles, r)
		if err != nil {
			return err
		}
		if len(rules) == 0 || may(ctx, chain, r, verb, name) {
			return nil
		}
		have, err := roles.RulesFor(ctx, r.User, ns)
		if err != nil {
			return err
		}
		ok, missing := validation.Covers(have, rules)
		if ok {
			return nil
		}
		var lines []string
		for _, m := range compact(missing) {
			lines = append(lines, show(m))
		}
		slices.Sort(lines)
		lines = slices.Compact(lines)
		return apierrors.NewForbidden(r.Resource.GroupResource(), r.Name, fmt.Errorf("user %q (groups=%q) is attempting to grant RBAC permissions not currently held:\n%s",
			r.User.GetName(), r.User.GetGroups(), strings.Join(lines, "\n")))
	}}
}

// granted answers what a request grants, and the verb that would let it pass: escalate for a role, bind for a binding.
func granted(ctx context.Context, roles *authz.RBAC, r *admission.Request) (verb string, rules []rbacv1.PolicyRule, ns, name string, err error) {
	bound := func(ref rbacv1.RoleRef, ns string) ([]rbacv1.PolicyRule, error) {
		rules, err := roles.RoleRules(ctx, ref, ns)
		if apierrors.IsNotFound(err) {
			return nil, err
		}
		return rules, err
	}
	switch o := r.Object.(type) {
	case *rbacv1.Role:
		if old, ok := r.Old.(*rbacv1.Role); ok && equality.Semantic.DeepEqual(old.Rules, o.Rules) {
			return "", nil, "", "", nil
		}
		return "escalate", o.Rules, o.Namespace, o.Name, nil
	case *rbacv1.ClusterRole:
		if old, ok := r.Old.(*rbacv1.ClusterRole); ok && equality.Semantic.DeepEqual(old.Rules, o.Rules) && equality.Semantic.DeepEqual(old.AggregationRule, o.AggregationRule) {
			return "", nil, "", "", nil
		}
		rules = o.Rules
		if o.AggregationRule != nil {
			// Whatever it comes to hold, he must hold: everything.
			rules = append(rules, rbacv1.PolicyRule{Verbs: []string{"*"}, APIGroups: []string{"*"}, Resources: []string{"*"}},
				rbacv1.PolicyRule{Verbs: []string{"*"}, NonResourceURLs: []string{"*"}})
		}
		return "escalate", rules, "", o.Name, nil
	case *rbacv1.RoleBinding:
		if old, ok := r.Old.(*rbacv1.RoleBinding); ok && equality.Semantic.DeepEqual(old.RoleRef, o.RoleRef) && equality.Semantic.DeepEqual(old.Subjects, o.Subjects) {
			return "", nil, "", "", nil
		}
		rules, err = bound(o.RoleRef, o.Namespace)
		return "bind", rules, o.Namespace, o.RoleRef.Name, err
	case *rbacv1.ClusterRoleBinding:
		if old, ok := r.Old.(*rbacv1.ClusterRoleBinding); ok && equality.Semantic.DeepEqual(old.RoleRef, o.RoleRef) && equality.Semantic.DeepEqual(old.Subjects, o.Subjects) {
			return "", nil, "", "", nil
		}
		rules, err = bound(o.RoleRef, "")
		return "bind", rules, "", o.RoleRef.Name, err
	}
	return "", nil, "", "", nil
}

// may tells whether the user was given the verb that lifts the check.
func may(ctx context.Context, chain *authz.Chain, r *admission.Request, verb, name string) bool {
	resource := r.Resource.Resource
	switch o := r.Object.(type) {
	case *rbacv1.RoleBinding:
		resource = "clusterroles"
		if o.RoleRef.Kind == "Role" {
			resource = "roles"
		}
	case *rbacv1.ClusterRoleBinding:
		resource = "clusterroles"
	}
	d, _, _ := chain.Authorize(ctx, authorizer.AttributesRecord{
		User: r.User, Verb: verb, APIGroup: rbacv1.GroupName, APIVersion: "*", Resource: resource, Namespace: r.Namespace, Name: name, ResourceRequest: true,
	})
	return d == authorizer.DecisionAllow
}

// compact joins the verbs of rules that are about one and the same resource, or one object of it.
func compact(rules []rbacv1.PolicyRule) (out []rbacv1.PolicyRule) {
	at := map[string]int{}
	for _, r := range rules {
		if len(r.APIGroups) != 1 || len(r.Resources) != 1 || len(r.ResourceNames) > 1 || len(r.NonResourceURLs) > 0 {
			out = append(out, r)
			continue
		}
		key := fmt.Sprintf("%q", slices.Concat(r.APIGroups, r.Resources, r.ResourceNames))
		i, known := at[key]
		if !known {
			at[key] = len(out)
			r.Verbs = slices.Clone(r.Verbs)
			out = append(out, r)
			continue
		}
		out[i].Verbs = append(out[i].Verbs, r.Verbs...)
	}
	return out
}

// show writes a rule as upstream's refusals do.
func show(r rbacv1.PolicyRule) string {
	var parts []string
	add := func(name string, list []string) {
		if len(list) > 0 {
			parts = append(parts, fmt.Sprintf("%s:%q", name, list))
		}
	}
	add("APIGroups", r.APIGroups)
	add("Resources", r.Resources)
	add("NonResourceURLs", r.NonResourceURLs)
	add("ResourceNames", r.ResourceNames)
	add("Verbs", r.Verbs)
	return "{" + strings.Join(parts, ", ") + "}"
}
