package validate

import (
	"math"
	"slices"
	"strconv"
	"strings"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	"k8s.io/apimachinery/pkg/api/validation"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// precedenceMost is the last a flow schema can be asked at.
const precedenceMost = 10000

var flowVerbs = []string{"create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"}

// FlowSchema answers what is wrong with a flow schema.
func FlowSchema(s *flowcontrolv1.FlowSchema) field.ErrorList {
	errs := validation.ValidateObjectMeta(&s.ObjectMeta, false, validation.NameIsDNSSubdomain, metadata)
	at := field.NewPath("spec")
	if n, p := s.Spec.MatchingPrecedence, at.Child("matchingPrecedence"); n <= 0 {
		errs = append(errs, field.Invalid(p, n, "must be a positive value"))
	} else if n > precedenceMost {
		errs = append(errs, field.Invalid(p, n, "must not be greater than 10000"))
	}
	if d := s.Spec.DistinguisherMethod; d != nil {
		errs = append(errs, among(at.Child("distinguisherMethod", "type"), d.Type, flowcontrolv1.FlowDistinguisherMethodByNamespaceType, flowcontrolv1.FlowDistinguisherMethodByUserType)...)
	}
	if n, p := s.Spec.PriorityLevelConfiguration.Name, at.Child("priorityLevelConfiguration", "name"); n == "" {
		errs = append(errs, field.Required(p, "must reference a priority level"))
	} else {
		errs = append(errs, wrong(p, n, validation.NameIsDNSSubdomain(n, false))...)
	}
	for i := range s.Spec.Rules {
		errs = append(errs, flowRule(&s.Spec.Rules[i], at.Child("rules").Index(i))...)
	}
	return errs
}

// FlowSchemaUpdate answers what is wrong with a flow schema in the place of old.
func FlowSchemaUpdate(s, old *flowcontrolv1.FlowSchema) field.ErrorList {
	return append(common(&s.ObjectMeta, &old.ObjectMeta, false), FlowSchema(s)...)
}

func flowRule(r *flowcontrolv1.PolicyRulesWithSubjects, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if len(r.Subjects) == 0 {
		errs = append(errs, field.Required(at.Child("subjects"), "subjects must contain at least one value"))
	}
	for i := range r.Subjects {
		errs = append(errs, flowSubject(&r.Subjects[i], at.Child("subjects").Index(i))...)
	}
	if len(r.ResourceRules) == 0 && len(r.NonResourceRules) == 0 {
		errs = append(errs, field.Required(at, "at least one of resourceRules and nonResourceRules has to be non-empty"))
	}
	for i, q := range r.ResourceRules {
		errs = append(errs, flowResources(&q, at.Child("resourceRules").Index(i))...)
	}
	for i, q := range r.NonResourceRules {
		p := at.Child("nonResourceRules").Index(i)
		errs = append(errs, flowVerbList(q.Verbs, p.Child("verbs"))...)
		urls := p.Child("nonResourceURLs")
		if len(q.NonResourceURLs) == 0 {
			errs = append(errs, field.Required(urls, "nonResourceURLs must contain at least one value"))
		} else if len(q.NonResourceURLs) > 1 && slices.Contains(q.NonResourceURLs, "*") {
			errs = append(errs, field.Invalid(urls, q.NonResourceURLs, "if '*' is present, must not specify other non-resource URLs"))
		}
		for j, u := range q.NonResourceURLs {
			if msg := flowURL(u); msg != "" {
				errs = append(errs, field.Invalid(urls.Index(j), u, msg))
			}
		}
	}
	return errs
}

func flowURL(u string) string {
	switch {
	case u == "*" || u == "/":
		return ""
	case !strings.HasPrefix(u, "/"):
		return "must start with slash"
	case strings.Contains(u, " "):
		return "must not contain white-space"
	case strings.Contains(u, "//"):
		return "must not contain double slash"
	case strings.Contains(strings.TrimSuffix(u, "/*"), "*"):
		return "wildcard can only do suffix matching"
	}
	return ""
}

func flowSubject(s *flowcontrolv1.Subject, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	only := func(kind flowcontrolv1.SubjectKind, set bool, name string, check func(p *field.Path) field.ErrorList) {
		switch p := at.Child(name); {
		case s.Kind == kind && !set:
			errs = append(errs, field.Required(p, name+" is required when subject kind is '"+string(kind)+"'"))
		case s.Kind == kind:
			errs = append(errs, check(p)...)
		case set:
			errs = append(errs, field.Forbidden(p, name+" is forbidden when subject kind is not '"+string(kind)+"'"))
		}
	}
	if errs = among(at.Child("kind"), s.Kind, flowcontrolv1.SubjectKindGroup, flowcontrolv1.SubjectKindServiceAccount, flowcontrolv1.SubjectKindUser); len(errs) > 0 {
		return errs
	}
	only(flowcontrolv1.SubjectKindServiceAccount, s.ServiceAccount != nil, "serviceAccount", func(p *field.Path) field.ErrorList {
		errs := required(s.ServiceAccount.Name, p.Child("name"))
		if n := s.ServiceAccount.Name; n != "" && n != "*" {
			errs = append(errs, wrong(p.Child("name"), n, validation.ValidateServiceAccountName(n, false))...)
		}
		if s.ServiceAccount.Namespace == "" {
			return append(errs, field.Required(p.Child("namespace"), "must specify namespace for service account"))
		}
		return append(errs, wrong(p.Child("namespace"), s.ServiceAccount.Namespace, validation.ValidateNamespaceName(s.ServiceAccount.Namespace, false))...)
	})
	only(flowcontrolv1.SubjectKindUser, s.User != nil, "user", func(p *field.Path) field.ErrorList { return required(s.User.Name, p.Child("name")) })
	only(flowcontrolv1.SubjectKindGroup, s.Group != nil, "group", func(p *field.Path) field.ErrorList { return required(s.Group.Name, p.Child("name")) })
	return errs
}

func flowResources(q *flowcontrolv1.ResourcePolicyRule, at *field.Path) field.ErrorList {
	errs := flowVerbList(q.Verbs, at.Child("verbs"))
	all := func(list []string, name, missing, things string) {
		if len(list) == 0 {
			errs = append(errs, field.Required(at.Child(name), missing))
		} else if len(list) > 1 && slices.Contains(list, "*") {
			errs = append(errs, field.Invalid(at.Child(name), list, "if '*' is present, must not specify other "+things))
		}
	}
	all(q.APIGroups, "apiGroups", "resource rules must supply at least one api group", "api groups")
	all(q.Resources, "resources", "resource rules must supply at least one resource", "resources")
	p := at.Child("namespaces")
	if len(q.Namespaces) == 0 && !q.ClusterScope {
		errs = append(errs, field.Required(p, "resource rules that are not cluster scoped must supply at least one namespace"))
	} else if len(q.Namespaces) > 1 && slices.Contains(q.Namespaces, "*") {
		errs = append(errs, field.Invalid(p, q.Namespaces, "if '*' is present, must not specify other namespaces"))
	} else {
		for i, n := range q.Namespaces {
			if n == "*" {
				continue
			}
			for _, msg := range utilvalidation.IsDNS1123Label(n) {
				errs = append(errs, field.Invalid(p.Index(i), n, "each member of this list must be '*' or a DNS-1123 label; "+msg))
			}
		}
	}
	return errs
}

func flowVerbList(verbs []string, at *field.Path) field.ErrorList {
	if len(verbs) == 0 {
		return field.ErrorList{field.Required(at, "verbs must contain at least one value")}
	}
	if slices.Contains(verbs, "*") {
		if len(verbs) > 1 {
			return field.ErrorList{field.Invalid(at, verbs, "if '*' is present, must not specify other verbs")}
		}
		return nil
	}
	for _, v := range verbs {
		if !slices.Contains(flowVerbs, v) {
			return field.ErrorList{field.NotSupported(at, verbs, flowVerbs)}
		}
	}
	return nil
}

// PriorityLevelConfiguration answers what is wrong with a priority level.
func PriorityLevelConfiguration(l *flowcontrolv1.PriorityLevelConfiguration) field.ErrorList {
	errs := validation.ValidateObjectMeta(&l.ObjectMeta, false, validation.NameIsDNSSubdomain, metadata)
	at := field.NewPath("spec")
	if name := l.Name; name == flowcontrolv1.PriorityLevelConfigurationNameExempt != (l.Spec.Type == flowcontrolv1.PriorityLevelEnablementExempt) {
		errs = append(errs, field.Invalid(at.Child("type"), l.Spec.Type, "type must be 'Exempt' if and only if name is 'exempt'"))
	}
	switch l.Spec.Type {
	case flowcontrolv1.PriorityLevelEnablementExempt:
		if l.Spec.Limited != nil {
			errs = append(errs, field.Forbidden(at.Child("limited"), "must be nil if the type is not Limited"))
		}
		if e := l.Spec.Exempt; e != nil {
			errs = append(errs, atLeastZero(e.NominalConcurrencyShares, at.Child("exempt", "nominalConcurrencyShares"))...)
			errs = append(errs, lendable(e.LendablePercent, at.Child("exempt", "lendablePercent"))...)
		}
	case flowcontrolv1.PriorityLevelEnablementLimited:
		if l.Spec.Exempt != nil {
			errs = append(errs, field.Forbidden(at.Child("exempt"), "must be nil if the type is Limited"))
		}
		if l.Spec.Limited == nil {
			return append(errs, field.Required(at.Child("limited"), "must not be empty when type is Limited"))
		}
		errs = append(errs, limitedLevel(l.Spec.Limited, at.Child("limited"))...)
	default:
		errs = append(errs, field.NotSupported(at.Child("type"), l.Spec.Type, []flowcontrolv1.PriorityLevelEnablement{flowcontrolv1.PriorityLevelEnablementExempt, flowcontrolv1.PriorityLevelEnablementLimited}))
	}
	return errs
}

// PriorityLevelConfigurationUpdate answers what is wrong with a priority level in the place of old.
func PriorityLevelConfigurationUpdate(l, old *flowcontrolv1.PriorityLevelConfiguration) field.ErrorList {
	return append(common(&l.ObjectMeta, &old.ObjectMeta, false), PriorityLevelConfiguration(l)...)
}

func limitedLevel(l *flowcontrolv1.LimitedPriorityLevelConfiguration, at *field.Path) field.ErrorList {
	errs := atLeastZero(l.NominalConcurrencyShares, at.Child("nominalConcurrencyShares"))
	errs = append(errs, lendable(l.LendablePercent, at.Child("lendablePercent"))...)
	if b := l.BorrowingLimitPercent; b != nil && *b < 0 {
		errs = append(errs, field.Invalid(at.Child("borrowingLimitPercent"), *b, "if specified, must be a non-negative integer"))
	}
	at = at.Child("limitResponse")
	q, p := l.LimitResponse.Queuing, at.Child("queuing")
	switch l.LimitResponse.Type {
	case flowcontrolv1.LimitResponseTypeReject:
		if q != nil {
			errs = append(errs, field.Forbidden(p, "must be nil if limited.limitResponse.type is not Limited"))
		}
	case flowcontrolv1.LimitResponseTypeQueue:
		if q == nil {
			return append(errs, field.Required(p, "must not be empty if limited.limitResponse.type is Limited"))
		}
		errs = append(errs, queuing(q, p)...)
	default:
		errs = append(errs, field.NotSupported(at.Child("type"), l.LimitResponse.Type, []flowcontrolv1.LimitResponseType{flowcontrolv1.LimitResponseTypeQueue, flowcontrolv1.LimitResponseTypeReject}))
	}
	return errs
}

func queuing(q *flowcontrolv1.QueuingConfiguration, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	const positive, queuesMost = "must be positive", 10_000_000
	if q.QueueLengthLimit <= 0 {
		errs = append(errs, field.Invalid(at.Child("queueLengthLimit"), q.QueueLengthLimit, positive))
	}
	if q.Queues <= 0 {
		errs = append(errs, field.Invalid(at.Child("queues"), q.Queues, positive))
	} else if q.Queues > queuesMost {
		errs = append(errs, field.Invalid(at.Child("queues"), q.Queues, "must not be greater than 10000000"))
	}
	p := at.Child("handSize")
	switch {
	case q.HandSize <= 0:
		errs = append(errs, field.Invalid(p, q.HandSize, positive))
	case q.HandSize > q.Queues:
		errs = append(errs, field.Invalid(p, q.HandSize, "should not be greater than queues ("+itoa(q.Queues)+")"))
	case handBits(q.Queues, q.HandSize) > 60:
		errs = append(errs, field.Invalid(p, q.HandSize, "required entropy bits of deckSize "+itoa(q.Queues)+" and handSize "+itoa(q.HandSize)+" should not be greater than 60"))
	}
	return errs
}

func atLeastZero(n *int32, at *field.Path) field.ErrorList {
	if n != nil && *n < 0 {
		return field.ErrorList{field.Invalid(at, *n, "must be a non-negative integer")}
	}
	return nil
}

func lendable(n *int32, at *field.Path) field.ErrorList {
	if n != nil && (*n < 0 || *n > 100) {
		return field.ErrorList{field.Invalid(at, *n, "must be between 0 and 100, inclusive")}
	}
	return nil
}

func itoa(n int32) string { return strconv.Itoa(int(n)) }

// handBits is how many bits of a hash it takes to deal a hand.
func handBits(queues, hand int32) int {
	bits := 0.0
	for i := range hand {
		bits += math.Log2(float64(queues - i))
	}
	return int(math.Ceil(bits))
}
