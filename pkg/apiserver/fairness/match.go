package fairness

import (
	"hash/fnv"
	"slices"
	"strings"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

// matches tells whether a flow schema is about a request.
func matches(s *flowcontrolv1.FlowSchemaSpec, a *authorizer.AttributesRecord) bool {
	for i := range s.Rules {
		if rule := &s.Rules[i]; covers(rule, a) && concerns(rule.Subjects, a.User) {
			return true
		}
	}
	return false
}

func concerns(subjects []flowcontrolv1.Subject, u user.Info) bool {
	for _, s := range subjects {
		switch {
		case s.User != nil && (s.User.Name == flowcontrolv1.NameAll || s.User.Name == u.GetName()):
			return true
		case s.Group != nil && (s.Group.Name == flowcontrolv1.NameAll || slices.Contains(u.GetGroups(), s.Group.Name)):
			return true
		case s.ServiceAccount != nil:
			rest, ok := strings.CutPrefix(u.GetName(), serviceaccount.ServiceAccountUsernamePrefix)
			ns, name, split := strings.Cut(rest, ":")
			if ok && split && ns == s.ServiceAccount.Namespace && (s.ServiceAccount.Name == flowcontrolv1.NameAll || s.ServiceAccount.Name == name) {
				return true
			}
		}
	}
	return false
}

func covers(rule *flowcontrolv1.PolicyRulesWithSubjects, a *authorizer.AttributesRecord) bool {
	if !a.ResourceRequest {
		for i := range rule.NonResourceRules {
			if n := &rule.NonResourceRules[i]; has(n.Verbs, a.Verb) && slices.ContainsFunc(n.NonResourceURLs, func(u string) bool { return isURL(u, a.Path) }) {
				return true
			}
		}
		return false
	}
	for i := range rule.ResourceRules {
		r := &rule.ResourceRules[i]
		if !has(r.Verbs, a.Verb) || !has(r.APIGroups, a.APIGroup) || !isResource(r.Resources, a.Resource, a.Subresource) {
			continue
		}
		if a.Namespace == "" && r.ClusterScope || a.Namespace != "" && has(r.Namespaces, a.Namespace) {
			return true
		}
	}
	return false
}

func has(list []string, x string) bool {
	for _, s := range list {
		if s == x || s == "*" {
			return true
		}
	}
	return false
}

func isURL(rule, path string) bool {
	if rule == "*" || rule == path {
		return true
	}
	prefix, ok := strings.CutSuffix(rule, "*")
	return ok && strings.HasPrefix(path, prefix)
}

func isResource(list []string, resource, sub string) bool {
	for _, s := range list {
		if s == "*" || sub == "" && s == resource {
			return true
		}
		if r, rest, ok := strings.Cut(s, "/"); ok && sub != "" && rest == sub && (r == "*" || r == resource) {
			return true
		}
	}
	return false
}

// flow is the hash of whose request it is, as far as the schema tells its requests apart.
func (f *Flow) flow(a *authorizer.AttributesRecord) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(f.Name))
	if f.spec.DistinguisherMethod != nil {
		_, _ = h.Write([]byte{0})
		_, _ = h.Write([]byte(f.distinguisher(a)))
	}
	x := h.Sum64() // its low bits depend on the last bytes alone; what follows spreads them
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	return x ^ x>>33
}

// distinguisher is by what a schema tells a request from others, "" if by nothing.
func (f *Flow) distinguisher(a *authorizer.AttributesRecord) string {
	if d := f.spec.DistinguisherMethod; d != nil {
		switch d.Type {
		case flowcontrolv1.FlowDistinguisherMethodByUserType:
			return a.User.GetName()
		case flowcontrolv1.FlowDistinguisherMethodByNamespaceType:
			return a.Namespace
		}
	}
	return ""
}

// deal picks size of n queues by a hash, no queue twice, each hand as likely as another.
func deal(hash uint64, n, size int, each func(queue int)) {
	var dealt [16]int
	hand := dealt[:0]
	for i := range min(size, n) {
		card := int(hash % uint64(n-i))
		hash /= uint64(n - i)
		at := 0
		for ; at < len(hand) && card >= hand[at]; at++ {
			card++ // those dealt are out of the deck
		}
		hand = slices.Insert(hand, at, card)
		each(card)
	}
}

// mandatoryLevels are the priority levels that always are.
func mandatoryLevels() []*flowcontrolv1.PriorityLevelConfiguration {
	zero, five := int32(0), int32(5)
	return []*flowcontrolv1.PriorityLevelConfiguration{
		{ObjectMeta: metav1.ObjectMeta{Name: flowcontrolv1.PriorityLevelConfigurationNameExempt}, Spec: flowcontrolv1.PriorityLevelConfigurationSpec{
			Type: flowcontrolv1.PriorityLevelEnablementExempt, Exempt: &flowcontrolv1.ExemptPriorityLevelConfiguration{NominalConcurrencyShares: &zero, LendablePercent: &zero},
		}},
		{ObjectMeta: metav1.ObjectMeta{Name: flowcontrolv1.PriorityLevelConfigurationNameCatchAll}, Spec: flowcontrolv1.PriorityLevelConfigurationSpec{
			Type: flowcontrolv1.PriorityLevelEnablementLimited, Limited: &flowcontrolv1.LimitedPriorityLevelConfiguration{
				NominalConcurrencyShares: &five, LendablePercent: &zero, LimitResponse: flowcontrolv1.LimitResponse{Type: flowcontrolv1.LimitResponseTypeReject},
			},
		}},
	}
}

// mandatoryFlows are the flow schemas that always are.
func mandatoryFlows() []*flowcontrolv1.FlowSchema {
	everything := func(groups ...string) []flowcontrolv1.PolicyRulesWithSubjects {
		rule := flowcontrolv1.PolicyRulesWithSubjects{
			ResourceRules:    []flowcontrolv1.ResourcePolicyRule{{Verbs: []string{"*"}, APIGroups: []string{"*"}, Resources: []string{"*"}, ClusterScope: true, Namespaces: []string{"*"}}},
			NonResourceRules: []flowcontrolv1.NonResourcePolicyRule{{Verbs: []string{"*"}, NonResourceURLs: []string{"*"}}},
		}
		for _, g := range groups {
			rule.Subjects = append(rule.Subjects, flowcontrolv1.Subject{Kind: flowcontrolv1.SubjectKindGroup, Group: &flowcontrolv1.GroupSubject{Name: g}})
		}
		return []flowcontrolv1.PolicyRulesWithSubjects{rule}
	}
	return []*flowcontrolv1.FlowSchema{
		{ObjectMeta: metav1.ObjectMeta{Name: flowcontrolv1.FlowSchemaNameExempt}, Spec: flowcontrolv1.FlowSchemaSpec{
			PriorityLevelConfiguration: flowcontrolv1.PriorityLevelConfigurationReference{Name: flowcontrolv1.PriorityLevelConfigurationNameExempt},
			MatchingPrecedence:         1, Rules: everything(user.SystemPrivilegedGroup),
		}},
		{ObjectMeta: metav1.ObjectMeta{Name: flowcontrolv1.FlowSchemaNameCatchAll}, Spec: flowcontrolv1.FlowSchemaSpec{
			PriorityLevelConfiguration: flowcontrolv1.PriorityLevelConfigurationReference{Name: flowcontrolv1.PriorityLevelConfigurationNameCatchAll},
			MatchingPrecedence:         10000, Rules: everything(user.AllUnauthenticated, user.AllAuthenticated),
			DistinguisherMethod: &flowcontrolv1.FlowDistinguisherMethod{Type: flowcontrolv1.FlowDistinguisherMethodByUserType},
		}},
	}
}
