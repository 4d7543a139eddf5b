package clusterrole

import (
	"fmt"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// Plan is what is to be written.
type Plan struct {
	Rules   []rbacv1.PolicyRule
	Changed bool
}

// String shows the plan as logs and tests do.
func (p Plan) String() string {
	if !p.Changed {
		return ""
	}
	var b strings.Builder
	for _, r := range p.Rules {
		fmt.Fprintf(&b, "%s on %s of %s\n", strings.Join(r.Verbs, ","), strings.Join(slices.Concat(r.Resources, r.NonResourceURLs), ","), strings.Join(r.APIGroups, ","))
	}
	return b.String()
}

// decide gathers the rules of all roles that an aggregated one selects, by name, each rule once.
func decide(role *rbacv1.ClusterRole, all []*rbacv1.ClusterRole) (Plan, error) {
	if role.AggregationRule == nil {
		return Plan{}, nil
	}
	sorted := slices.Clone(all)
	slices.SortFunc(sorted, func(a, b *rbacv1.ClusterRole) int { return strings.Compare(a.Name, b.Name) })
	rules := []rbacv1.PolicyRule{}
	for i := range role.AggregationRule.ClusterRoleSelectors {
		sel, err := metav1.LabelSelectorAsSelector(&role.AggregationRule.ClusterRoleSelectors[i])
		if err != nil {
			return Plan{}, fmt.Errorf("reading selector %d of cluster role %s: %w", i, role.Name, err)
		}
		for _, r := range sorted {
			if r.Name == role.Name || !sel.Matches(labels.Set(r.Labels)) {
				continue
			}
			for _, rule := range r.Rules {
				if !slices.ContainsFunc(rules, func(have rbacv1.PolicyRule) bool { return equality.Semantic.DeepEqual(have, rule) }) {
					rules = append(rules, rule)
				}
			}
		}
	}
	return Plan{Rules: rules, Changed: !equality.Semantic.DeepEqual(rules, role.Rules)}, nil
}
