package authz

import (
	"context"
	"path"
	"slices"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"pgregory.net/rapid"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

// world is the part of an Env that authorizers read. What it lacks panics.
type world struct {
	kind.Env
	objects map[schema.GroupResource][]kind.Object
	count   uint64
}

func (w *world) Changed(schema.GroupResource) uint64 { return w.count }

func (w *world) List(_ context.Context, gr schema.GroupResource, namespace string) ([]kind.Object, error) {
	return slices.DeleteFunc(slices.Clone(w.objects[gr]), func(o kind.Object) bool { return namespace != "" && o.GetNamespace() != namespace }), nil
}

func (w *world) Get(_ context.Context, gr schema.GroupResource, namespace, name string) (kind.Object, error) {
	for _, o := range w.objects[gr] {
		if o.GetNamespace() == namespace && o.GetName() == name {
			return o, nil
		}
	}
	return nil, apierrors.NewNotFound(gr, name)
}

// request is everything that RBAC looks at; path is set for what is no resource.
type request struct{ verb, group, resource, sub, name, namespace, path string }

func (q request) attributes(u user.Info) authorizer.Attributes {
	return authorizer.AttributesRecord{
		User: u, Verb: q.verb, APIGroup: q.group, Resource: q.resource, Subresource: q.sub, Name: q.name, Namespace: q.namespace,
		Path: q.path, ResourceRequest: q.path == "",
	}
}

// The words that requests and rules are made of, and those that only rules know.
var (
	verbs     = []string{"get", "list", "create"}
	groups    = []string{"", "apps"}
	resources = []string{"pods", "deployments"}
	subs      = []string{"", "log", "scale"}
	names     = []string{"", "a", "b"}
	spaces    = []string{"", "x", "y"}
	paths     = []string{"/healthz", "/logs/a", "/logs"}

	ruleResources = []string{"*", "pods", "pods/log", "*/scale", "deployments", "deployments/scale", "pods/*"}
	rulePaths     = []string{"*", "/healthz", "/logs/*", "/logs", "/lo*"}
	people        = []string{"ann", "bob", "system:serviceaccount:x:robot"}
	teams         = []string{"dev", "ops"}
)

// modelAllows is what the documentation says of a rule, by patterns: slow and plain.
func modelAllows(r rbacv1.PolicyRule, q request) bool {
	glob := func(patterns []string, s string) bool {
		for _, p := range patterns {
			if p == "*" || p == s {
				return true
			}
		}
		return false
	}
	if !glob(r.Verbs, q.verb) {
		return false
	}
	if q.path != "" {
		for _, p := range r.NonResourceURLs {
			ok := p == q.path || p == "*"
			if n := len(p) - 1; p[n] == '*' && len(q.path) >= n && q.path[:n] == p[:n] {
				ok = true
			}
			if ok {
				return true
			}
		}
		return false
	}
	if !glob(r.APIGroups, q.group) || len(r.ResourceNames) > 0 && !slices.Contains(r.ResourceNames, q.name) {
		return false
	}
	for _, p := range r.Resources {
		if p == "*" || p == path.Join(q.resource, q.sub) || q.sub != "" && p == "*/"+q.sub {
			return true
		}
	}
	return false
}

// modelMay walks every binding for every request.
func modelMay(w *world, u user.Info, q request) bool {
	is := func(s rbacv1.Subject) bool {
		switch s.Kind {
		case "User":
			return s.Name == u.GetName()
		case "Group":
			return slices.Contains(u.GetGroups(), s.Name)
		}
		return u.GetName() == "system:serviceaccount:"+s.Namespace+":"+s.Name
	}
	rulesOf := func(ref rbacv1.RoleRef, namespace string) []rbacv1.PolicyRule {
		if ref.Kind == "ClusterRole" {
			if o, err := w.Get(context.Background(), clusterRoles, "", ref.Name); err == nil {
				return o.(*rbacv1.ClusterRole).Rules
			}
			return nil
		}
		if o, err := w.Get(context.Background(), roles, namespace, ref.Name); err == nil {
			return o.(*rbacv1.Role).Rules
		}
		return nil
	}
	allowed := func(list []rbacv1.Subject, rules []rbacv1.PolicyRule) bool {
		return slices.ContainsFunc(list, is) && slices.ContainsFunc(rules, func(r rbacv1.PolicyRule) bool { return modelAllows(r, q) })
	}
	for _, o := range w.objects[clusterRoleBindings] {
		b := o.(*rbacv1.ClusterRoleBinding)
		if allowed(b.Subjects, rulesOf(b.RoleRef, "")) {
			return true
		}
	}
	for _, o := range w.objects[roleBindings] {
		b := o.(*rbacv1.RoleBinding)
		if b.Namespace == q.namespace && q.path == "" && allowed(b.Subjects, rulesOf(b.RoleRef, b.Namespace)) {
			return true
		}
	}
	return false
}

func some(t *rapid.T, label string, from ...string) []string {
	return rapid.SliceOfN(rapid.SampledFrom(from), 1, 2).Draw(t, label)
}

func anyRules(t *rapid.T, cluster bool) []rbacv1.PolicyRule {
	rules := make([]rbacv1.PolicyRule, rapid.IntRange(0, 2).Draw(t, "rules"))
	for i := range rules {
		r := &rules[i]
		r.Verbs = some(t, "verbs", append(verbs, "*")...)
		if cluster && rapid.Bool().Draw(t, "urls?") {
			r.NonResourceURLs = some(t, "urls", rulePaths...)
			continue
		}
		r.APIGroups, r.Resources = some(t, "groups", append(groups, "*")...), some(t, "resources", ruleResources...)
		if rapid.Bool().Draw(t, "names?") {
			r.ResourceNames = some(t, "names", "a", "b")
		}
	}
	return rules
}

func anySubjects(t *rapid.T) []rbacv1.Subject {
	return []rbacv1.Subject{rapid.SampledFrom([]rbacv1.Subject{
		{Kind: "User", Name: "ann"}, {Kind: "User", Name: "bob"}, {Kind: "Group", Name: "dev"}, {Kind: "Group", Name: "ops"},
		{Kind: "ServiceAccount", Namespace: "x", Name: "robot"}, {Kind: "ServiceAccount", Namespace: "y", Name: "robot"},
	}).Draw(t, "subject")}
}

// fill makes the roles and bindings of a world anew.
func (w *world) fill(t *rapid.T) {
	w.objects = map[schema.GroupResource][]kind.Object{}
	w.count++
	for _, name := range names {
		w.objects[clusterRoles] = append(w.objects[clusterRoles], &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "c" + name}, Rules: anyRules(t, true)})
	}
	for _, ns := range spaces[1:] {
		w.objects[roles] = append(w.objects[roles], &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "r"}, Rules: anyRules(t, false)})
	}
	refs := rapid.SampledFrom([]rbacv1.RoleRef{
		{Kind: "ClusterRole", Name: "c"}, {Kind: "ClusterRole", Name: "ca"}, {Kind: "ClusterRole", Name: "cb"}, {Kind: "ClusterRole", Name: "gone"},
	})
	for range rapid.IntRange(0, 2).Draw(t, "cluster bindings") {
		w.objects[clusterRoleBindings] = append(w.objects[clusterRoleBindings], &rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: "b"}, RoleRef: refs.Draw(t, "cluster role"), Subjects: anySubjects(t),
		})
	}
	for range rapid.IntRange(0, 4).Draw(t, "bindings") {
		ref := refs.Draw(t, "role")
		if rapid.Bool().Draw(t, "own role?") {
			ref = rbacv1.RoleRef{Kind: "Role", Name: rapid.SampledFrom([]string{"r", "gone"}).Draw(t, "own role")}
		}
		w.objects[roleBindings] = append(w.objects[roleBindings], &rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Namespace: rapid.SampledFrom(spaces[1:]).Draw(t, "namespace"), Name: "b"}, RoleRef: ref, Subjects: anySubjects(t),
		})
	}
}

// RBAC answers every request as a walk over all bindings does, also after they changed.
func TestRBACIsTheNaiveModel(t *testing.T) {
	yes, no := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		w := &world{}
		chain, err := New([]string{"RBAC"}, w)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			w.fill(t)
			for range 20 {
				u := &user.DefaultInfo{Name: rapid.SampledFrom(people).Draw(t, "who"), Groups: some(t, "groups", teams...)}
				pick := func(from []string) string { return rapid.SampledFrom(from).Draw(t, "word") }
				q := request{verb: pick(verbs), path: pick(paths)}
				if rapid.IntRange(0, 3).Draw(t, "kind") > 0 {
					q = request{verb: pick(verbs), group: pick(groups), resource: pick(resources), sub: pick(subs), name: pick(names), namespace: pick(spaces)}
				}
				d, _, err := chain.Authorize(context.Background(), q.attributes(u))
				if want := modelMay(w, u, q); err != nil || (d == authorizer.DecisionAllow) != want {
					t.Fatalf("%s asks %+v: decision %v (%v), the model says %v", u.Name, q, d, err, want)
				} else if want {
					yes++
				} else {
					no++
				}
			}
		}
	})
	if yes < 20 || no < 20 {
		t.Errorf("%d requests were allowed and %d not: that tests nothing", yes, no)
	}
}

func TestOwnersMayEverything(t *testing.T) {
	chain, err := New([]string{"RBAC"}, &world{})
	if err != nil {
		t.Fatal(err)
	}
	for group, want := range map[string]authorizer.Decision{"system:masters": authorizer.DecisionAllow, "masters": authorizer.DecisionNoOpinion} {
		u := &user.DefaultInfo{Name: "x", Groups: []string{group}}
		if d, _, err := chain.Authorize(context.Background(), request{verb: "delete", resource: "nodes"}.attributes(u)); d != want || err != nil {
			t.Errorf("%s: decision %v, %v", group, d, err)
		}
	}
	if _, err := New([]string{"Nobody"}, &world{}); err == nil {
		t.Error("an unknown mode was accepted")
	}
}
