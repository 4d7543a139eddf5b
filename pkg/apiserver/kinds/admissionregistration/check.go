package admissionregistration

import (
	"fmt"
	"net/url"
	"slices"
	"strings"

	v1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/admission/plugin/cel"
	apiservercel "k8s.io/apiserver/pkg/cel"
	"k8s.io/apiserver/pkg/cel/environment"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/pkg/apiserver/match"
)

// checkMeta is what all kinds of the group ask of metadata.
func checkMeta(m, old *metav1.ObjectMeta) field.ErrorList {
	at := field.NewPath("metadata")
	errs := validation.ValidateObjectMeta(m, false, validation.NameIsDNSSubdomain, at)
	if old != nil {
		errs = append(errs, validation.ValidateObjectMetaUpdate(m, old, at)...)
	}
	return errs
}

func oneOf[T ~string](v *T, at *field.Path, known ...T) field.ErrorList {
	if v == nil || slices.Contains(known, *v) {
		return nil
	}
	return field.ErrorList{field.NotSupported(at, *v, known)}
}

// reviewVersions are those in which the server can ask webhooks.
var reviewVersions = []string{"v1", "v1beta1"}

func checkValidatingWebhooks(_ *kind.Op, c, old *v1.ValidatingWebhookConfiguration) field.ErrorList {
	var errs field.ErrorList
	var known []v1.MatchCondition // expressions that were allowed once stay so
	if old != nil {
		errs = checkMeta(&c.ObjectMeta, &old.ObjectMeta)
		for i := range old.Webhooks {
			known = append(known, old.Webhooks[i].MatchConditions...)
		}
	} else {
		errs = checkMeta(&c.ObjectMeta, nil)
	}
	names := map[string]bool{}
	for i := range c.Webhooks {
		errs = append(errs, checkWebhook(&c.Webhooks[i], names, known, field.NewPath("webhooks").Index(i))...)
	}
	return errs
}

func checkMutatingWebhooks(_ *kind.Op, c, old *v1.MutatingWebhookConfiguration) field.ErrorList {
	var errs field.ErrorList
	var known []v1.MatchCondition
	if old != nil {
		errs = checkMeta(&c.ObjectMeta, &old.ObjectMeta)
		for i := range old.Webhooks {
			known = append(known, old.Webhooks[i].MatchConditions...)
		}
	} else {
		errs = checkMeta(&c.ObjectMeta, nil)
	}
	names := map[string]bool{}
	for i := range c.Webhooks {
		at, w := field.NewPath("webhooks").Index(i), c.Webhooks[i]
		errs = append(errs, checkWebhook(&v1.ValidatingWebhook{
			Name: w.Name, ClientConfig: w.ClientConfig, Rules: w.Rules, FailurePolicy: w.FailurePolicy, MatchPolicy: w.MatchPolicy, NamespaceSelector: w.NamespaceSelector,
			ObjectSelector: w.ObjectSelector, SideEffects: w.SideEffects, TimeoutSeconds: w.TimeoutSeconds, AdmissionReviewVersions: w.AdmissionReviewVersions, MatchConditions: w.MatchConditions,
		}, names, known, at)...)
		errs = append(errs, oneOf(w.ReinvocationPolicy, at.Child("reinvocationPolicy"), v1.IfNeededReinvocationPolicy, v1.NeverReinvocationPolicy)...)
	}
	return errs
}

func checkWebhook(w *v1.ValidatingWebhook, names map[string]bool, known []v1.MatchCondition, at *field.Path) field.ErrorList {
	errs := checkReviewVersions(w.AdmissionReviewVersions, at.Child("admissionReviewVersions"))
	errs = append(errs, utilvalidation.IsFullyQualifiedName(at.Child("name"), w.Name)...)
	if names[w.Name] {
		errs = append(errs, field.Duplicate(at.Child("name"), w.Name))
	}
	names[w.Name] = true
	for i := range w.Rules {
		errs = append(errs, checkRule(&w.Rules[i], at.Child("rules").Index(i), true)...)
	}
	errs = append(errs, oneOf(w.FailurePolicy, at.Child("failurePolicy"), v1.Fail, v1.Ignore)...)
	errs = append(errs, oneOf(w.MatchPolicy, at.Child("matchPolicy"), v1.Equivalent, v1.Exact)...)
	if w.SideEffects == nil {
		errs = append(errs, field.Required(at.Child("sideEffects"), "must specify one of None, NoneOnDryRun"))
	} else {
		errs = append(errs, oneOf(w.SideEffects, at.Child("sideEffects"), v1.SideEffectClassNone, v1.SideEffectClassNoneOnDryRun)...)
	}
	if t := w.TimeoutSeconds; t != nil && (*t < 1 || *t > 30) {
		errs = append(errs, field.Invalid(at.Child("timeoutSeconds"), *t, "the timeout value must be between 1 and 30 seconds"))
	}
	errs = append(errs, checkSelector(w.NamespaceSelector, at.Child("namespaceSelector"))...)
	errs = append(errs, checkSelector(w.ObjectSelector, at.Child("objectSelector"))...)
	errs = append(errs, checkClient(&w.ClientConfig, at.Child("clientConfig"))...)
	return append(errs, checkConditions(w.MatchConditions, known, at.Child("matchConditions"), standing)...)
}

func checkSelector(s *metav1.LabelSelector, at *field.Path) field.ErrorList {
	if s == nil {
		return nil
	}
	return metav1validation.ValidateLabelSelector(s, metav1validation.LabelSelectorValidationOptions{}, at)
}

func checkReviewVersions(versions []string, at *field.Path) (errs field.ErrorList) {
	if len(versions) == 0 {
		return field.ErrorList{field.Required(at, "must specify one of "+strings.Join(reviewVersions, ", "))}
	}
	seen, found := map[string]bool{}, false
	for i, v := range versions {
		if seen[v] {
			errs = append(errs, field.Invalid(at.Index(i), v, "duplicate version"))
			continue
		}
		seen[v] = true
		for _, msg := range utilvalidation.IsDNS1035Label(v) {
			errs = append(errs, field.Invalid(at.Index(i), v, msg))
		}
		found = found || slices.Contains(reviewVersions, v)
	}
	if !found {
		errs = append(errs, field.Invalid(at, versions, "must include at least one of "+strings.Join(reviewVersions, ", ")))
	}
	return errs
}

func checkRule(r *v1.RuleWithOperations, at *field.Path, subresources bool) (errs field.ErrorList) {
	if len(r.Operations) == 0 {
		errs = append(errs, field.Required(at.Child("operations"), ""))
	}
	if len(r.Operations) > 1 && slices.Contains(r.Operations, v1.OperationAll) {
		errs = append(errs, field.Invalid(at.Child("operations"), r.Operations, "if '*' is present, must not specify other operations"))
	}
	for i := range r.Operations {
		errs = append(errs, oneOf(&r.Operations[i], at.Child("operations").Index(i), v1.OperationAll, v1.Connect, v1.Create, v1.Delete, v1.Update)...)
	}
	list := func(values []string, name, what string, empty bool) {
		if len(values) == 0 {
			errs = append(errs, field.Required(at.Child(name), ""))
		}
		if len(values) > 1 && slices.Contains(values, "*") {
			errs = append(errs, field.Invalid(at.Child(name), values, "if '*' is present, must not specify other "+what))
		}
		for i, v := range values {
			if v == "" && !empty {
				errs = append(errs, field.Required(at.Child(name).Index(i), ""))
			}
		}
	}
	list(r.APIGroups, "apiGroups", "API groups", true)
	list(r.APIVersions, "apiVersions", "API versions", false)
	if subresources {
		errs = append(errs, checkResources(r.Resources, at.Child("resources"))...)
	}
	return append(errs, oneOf(r.Scope, at.Child("scope"), v1.AllScopes, v1.ClusterScope, v1.NamespacedScope)...)
}

// checkResources also finds what another resource of the list already says.
func checkResources(list []string, at *field.Path) (errs field.ErrorList) {
	if len(list) == 0 {
		return field.ErrorList{field.Required(at, "")}
	}
	all, everySub, everyOf := slices.Contains(list, "*/*"), map[string]bool{}, map[string]bool{}
	for i, r := range list {
		if r == "" {
			errs = append(errs, field.Required(at.Index(i), ""))
			continue
		}
		if all && r != "*/*" {
			errs = append(errs, field.Invalid(at.Index(i), list, "if '*/*' is present, must not specify other resources"))
			continue
		}
		res, sub, has := strings.Cut(r, "/")
		if sub == "*" {
			everySub[res] = true
		}
		if has && res == "*" {
			everyOf[sub] = true
		}
		if has && sub != "*" && everySub[res] {
			errs = append(errs, field.Invalid(at.Index(i), r, fmt.Sprintf("if '%s/*' is present, must not specify %s", res, r)))
		}
		if has && res != "*" && everyOf[sub] {
			errs = append(errs, field.Invalid(at.Index(i), r, fmt.Sprintf("if '*/%s' is present, must not specify %s", sub, r)))
		}
	}
	if len(list) > 1 && slices.Contains(list, "*") {
		for _, r := range list {
			if !strings.Contains(r, "/") && r != "*" {
				errs = append(errs, field.Invalid(at, list, "if '*' is present, must not specify other resources without subresources"))
				break
			}
		}
	}
	return errs
}

func checkClient(c *v1.WebhookClientConfig, at *field.Path) field.ErrorList {
	switch {
	case (c.URL == nil) == (c.Service == nil):
		return field.ErrorList{field.Required(at, "exactly one of url or service is required")}
	case c.URL != nil:
		return checkURL(*c.URL, at.Child("url"))
	}
	var errs field.ErrorList
	s, at := c.Service, at.Child("service")
	// Clients know these two under each other's name.
	if s.Namespace == "" {
		errs = append(errs, field.Required(at.Child("name"), ""))
	}
	if s.Name == "" {
		errs = append(errs, field.Required(at.Child("namespace"), ""))
	}
	if s.Port != nil {
		for _, msg := range utilvalidation.IsValidPortNum(int(*s.Port)) {
			errs = append(errs, field.Invalid(at.Child("port"), *s.Port, "port is not valid: "+msg))
		}
	}
	if s.Path == nil {
		return errs
	}
	p := *s.Path
	at = at.Child("path")
	if !strings.HasPrefix(p, "/") {
		errs = append(errs, field.Invalid(at, p, "must start with a '/'"))
	}
	if strings.Trim(p, "/") == "" {
		return errs
	}
	for i, step := range strings.Split(strings.TrimSuffix(strings.TrimPrefix(p, "/"), "/"), "/") {
		if step == "" {
			errs = append(errs, field.Invalid(at, p, fmt.Sprintf("segment[%d] may not be empty", i)))
			continue
		}
		for _, msg := range utilvalidation.IsDNS1123Subdomain(step) {
			errs = append(errs, field.Invalid(at, p, fmt.Sprintf("segment[%d]: %v", i, msg)))
		}
	}
	return errs
}

func checkURL(text string, at *field.Path) (errs field.ErrorList) {
	const form = "; desired format: https://host[/path]"
	u, err := url.Parse(text)
	if err != nil {
		return field.ErrorList{field.Required(at, "url must be a valid URL: "+err.Error()+form)}
	}
	if u.Scheme != "https" {
		errs = append(errs, field.Invalid(at, u.Scheme, "'https' is the only allowed URL scheme"+form))
	}
	if u.Host == "" {
		errs = append(errs, field.Invalid(at, u.Host, "host must be specified"+form))
	}
	if u.User != nil {
		errs = append(errs, field.Invalid(at, u.User.String(), "user information is not permitted in the URL"))
	}
	if u.Fragment != "" {
		errs = append(errs, field.Invalid(at, u.Fragment, "fragments are not permitted in the URL"))
	}
	if u.RawQuery != "" {
		errs = append(errs, field.Invalid(at, u.RawQuery, "query parameters are not permitted in the URL"))
	}
	return errs
}

// most is how many match conditions there may be.
const most = 64

// standing compiles an expression that belongs to no policy.
func standing(e cel.ExpressionAccessor, mode environment.Type) *apiservercel.Error {
	return match.Compiler().CompileCELExpression(e, match.WithAuthorizer, mode).Error
}

// compile finds the fault of an expression, nil if there is none.
type compile func(e cel.ExpressionAccessor, mode environment.Type) *apiservercel.Error

func checkConditions(list, known []v1.MatchCondition, at *field.Path, c compile) (errs field.ErrorList) {
	if len(list) > most {
		errs = append(errs, field.TooMany(at, len(list), most))
	}
	names := map[string]bool{}
	for i, e := range match.ConditionsOf(list) {
		m, at := list[i], at.Index(i)
		if strings.TrimSpace(m.Expression) == "" {
			errs = append(errs, field.Required(at.Child("expression"), ""))
		} else {
			was := slices.ContainsFunc(known, func(k v1.MatchCondition) bool { return k.Expression == m.Expression })
			errs = append(errs, checkExpression(e, at.Child("expression"), was, c)...)
		}
		if m.Name == "" {
			errs = append(errs, field.Required(at.Child("name"), ""))
			continue
		}
		for _, msg := range utilvalidation.IsQualifiedName(m.Name) {
			errs = append(errs, field.Invalid(at.Child("name"), m.Name, msg))
		}
		if names[m.Name] {
			errs = append(errs, field.Duplicate(at.Child("name"), m.Name))
		}
		names[m.Name] = true
	}
	return errs
}

// checkExpression compiles an expression; one that stood there before may use what is no longer offered to new ones.
func checkExpression(e cel.ExpressionAccessor, at *field.Path, stored bool, c compile) field.ErrorList {
	mode := environment.NewExpressions
	if stored {
		mode = environment.StoredExpressions
	}
	err := c(e, mode)
	if err == nil {
		return nil
	}
	if err.Type == apiservercel.ErrorTypeInternal {
		return field.ErrorList{field.InternalError(at, err)}
	}
	return field.ErrorList{field.Invalid(at, e.GetExpression(), err.Detail)}
}
