package admissionregistration

import (
	"slices"
	"strings"

	celgo "github.com/google/cel-go/cel"
	v1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/admission/plugin/cel"
	"k8s.io/apiserver/pkg/admission/plugin/policy/mutating/patch"
	apiservercel "k8s.io/apiserver/pkg/cel"
	"k8s.io/apiserver/pkg/cel/environment"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/pkg/apiserver/match"
)

// checker checks one policy's expressions, which know its variables.
type checker struct {
	compiler *cel.CompositedCompiler // nil until there are variables
	params   bool
	stored   map[string]bool // expressions that the policy had before
}

func (c *checker) declared() cel.OptionalVariableDeclarations {
	return cel.OptionalVariableDeclarations{HasParams: c.params, HasAuthorizer: true}
}

// with compiles expressions that know what decl declares.
func (c *checker) with(decl cel.OptionalVariableDeclarations) compile {
	return func(e cel.ExpressionAccessor, mode environment.Type) *apiservercel.Error {
		if c.compiler != nil {
			return c.compiler.CompileCELExpression(e, decl, mode).Error
		}
		return match.Compiler().CompileCELExpression(e, decl, mode).Error
	}
}

func (c *checker) expression(text string, types []*celgo.Type, decl cel.OptionalVariableDeclarations, at *field.Path) field.ErrorList {
	if strings.TrimSpace(text) == "" {
		return field.ErrorList{field.Required(at, "expression is not specified")}
	}
	return checkExpression(&match.Expression{Text: text, Types: types}, at, c.stored[text], c.with(decl))
}

// variables checks the variables; each may use those before it.
func (c *checker) variables(list []v1.Variable, at *field.Path) (errs field.ErrorList) {
	if len(list) == 0 {
		return nil
	}
	var err error
	if c.compiler, err = match.Composed(); err != nil {
		return field.ErrorList{field.InternalError(at, err)}
	}
	seen := map[string]bool{}
	for i, v := range list {
		at := at.Index(i)
		switch {
		case v.Name == "":
			errs = append(errs, field.Required(at.Child("name"), "name is not specified"))
		case !identifier(v.Name):
			errs = append(errs, field.Invalid(at.Child("name"), v.Name, "must be a valid CEL identifier"))
		}
		if seen[v.Name] {
			errs = append(errs, field.Duplicate(at.Child("name"), v.Name))
		}
		seen[v.Name] = true
		if strings.TrimSpace(v.Expression) == "" {
			errs = append(errs, field.Required(at.Child("expression"), "expression is not specified"))
			continue
		}
		mode := environment.NewExpressions
		if c.stored[v.Expression] {
			mode = environment.StoredExpressions
		}
		if v.Name == "" {
			continue
		}
		r := c.compiler.CompileAndStoreVariable(&match.Expression{Name: v.Name, Text: v.Expression, Types: match.AnythingType}, c.declared(), mode)
		if r.Error != nil {
			errs = append(errs, field.Invalid(at.Child("expression"), v.Expression, r.Error.Detail))
		}
	}
	return errs
}

// identifier tells whether a name can stand in an expression.
func identifier(s string) bool {
	for i, r := range s {
		letter := r == '_' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
		if !letter && (i == 0 || r < '0' || r > '9') {
			return false
		}
	}
	return !slices.Contains(reserved, s)
}

// reserved words of the language cannot name anything.
var reserved = strings.Fields("true false null in as break const continue else for function if import let loop package namespace return var void while")

var (
	reasons = []metav1.StatusReason{metav1.StatusReasonForbidden, metav1.StatusReasonInvalid, metav1.StatusReasonRequestEntityTooLarge}
	actions = []v1.ValidationAction{v1.Audit, v1.Deny, v1.Warn}
)

func checkPolicy(_ *kind.Op, p, old *v1.ValidatingAdmissionPolicy) field.ErrorList {
	c := &checker{params: p.Spec.ParamKind != nil, stored: map[string]bool{}}
	errs := checkMeta(&p.ObjectMeta, metaOr(old == nil, func() *metav1.ObjectMeta { return &old.ObjectMeta }))
	var known []v1.MatchCondition
	if old != nil {
		known = old.Spec.MatchConditions
		c.remember(old.Spec.Variables)
		for _, v := range old.Spec.Validations {
			c.stored[v.Expression], c.stored[v.MessageExpression] = true, true
		}
		for _, a := range old.Spec.AuditAnnotations {
			c.stored[a.ValueExpression] = true
		}
	}
	at, s := field.NewPath("spec"), &p.Spec
	errs = append(errs, oneOf(s.FailurePolicy, at.Child("failurePolicy"), v1.Fail, v1.Ignore)...)
	errs = append(errs, checkParamKind(s.ParamKind, at.Child("paramKind"))...)
	errs = append(errs, checkConstraints(s.MatchConstraints, at.Child("matchConstraints"))...)
	errs = append(errs, c.variables(s.Variables, at.Child("variables"))...)
	if len(s.Validations) == 0 && len(s.AuditAnnotations) == 0 {
		const text = "validations or auditAnnotations must contain at least one item"
		return append(errs, field.Required(at.Child("validations"), text), field.Required(at.Child("auditAnnotations"), text))
	}
	for i := range s.Validations {
		errs = append(errs, c.validation(&s.Validations[i], at.Child("validations").Index(i))...)
	}
	errs = append(errs, c.annotations(s.AuditAnnotations, p.Name, at.Child("auditAnnotations"))...)
	return append(errs, checkConditions(s.MatchConditions, known, at.Child("matchConditions"), c.with(c.declared()))...)
}

func metaOr(none bool, m func() *metav1.ObjectMeta) *metav1.ObjectMeta {
	if none {
		return nil
	}
	return m()
}

func (c *checker) remember(list []v1.Variable) {
	for _, v := range list {
		c.stored[v.Expression] = true
	}
}

func (c *checker) validation(v *v1.Validation, at *field.Path) field.ErrorList {
	errs := c.expression(v.Expression, match.Bool, c.declared(), at.Child("expression"))
	if text := v.MessageExpression; text != "" {
		if strings.TrimSpace(text) == "" {
			errs = append(errs, field.Invalid(at.Child("messageExpression"), text, "must be non-empty if specified"))
		} else {
			errs = append(errs, c.expression(text, match.Text, cel.OptionalVariableDeclarations{HasParams: c.params}, at.Child("messageExpression"))...)
		}
	}
	switch text := v.Message; {
	case text != "" && strings.TrimSpace(text) == "":
		errs = append(errs, field.Invalid(at.Child("message"), text, "message must be non-empty if specified"))
	case strings.ContainsAny(strings.TrimSpace(text), "\n\r"):
		errs = append(errs, field.Invalid(at.Child("message"), text, "message must not contain line breaks"))
	case text == "" && v.MessageExpression == "" && strings.ContainsAny(strings.TrimSpace(v.Expression), "\n\r"):
		errs = append(errs, field.Required(at.Child("message"), "message must be specified if expression contains line breaks"))
	}
	if v.Reason != nil && !slices.Contains(reasons, *v.Reason) {
		errs = append(errs, field.NotSupported(at.Child("reason"), *v.Reason, reasons))
	}
	return errs
}

func (c *checker) annotations(list []v1.AuditAnnotation, policy string, at *field.Path) (errs field.ErrorList) {
	if len(list) > 20 {
		errs = append(errs, field.Invalid(at, list, "must not have more than 20 auditAnnotations"))
	}
	seen := map[string]bool{}
	for i, a := range list {
		at := at.Index(i)
		if a.Key == "" {
			errs = append(errs, field.Required(at.Child("key"), ""))
		} else {
			for _, msg := range utilvalidation.IsQualifiedName(policy + "/" + a.Key) {
				errs = append(errs, field.Invalid(at.Child("key"), a.Key, msg))
			}
			if seen[a.Key] {
				errs = append(errs, field.Duplicate(at.Child("key"), a.Key))
			}
			seen[a.Key] = true
		}
		if strings.TrimSpace(a.ValueExpression) == "" {
			errs = append(errs, field.Required(at.Child("valueExpression"), "valueExpression is not specified"))
			continue
		}
		errs = append(errs, c.expression(a.ValueExpression, match.TextOrNull, cel.OptionalVariableDeclarations{HasParams: c.params}, at.Child("valueExpression"))...)
	}
	return errs
}

func checkParamKind(k *v1.ParamKind, at *field.Path) (errs field.ErrorList) {
	if k == nil {
		return nil
	}
	switch gv, err := schema.ParseGroupVersion(k.APIVersion); {
	case k.APIVersion == "":
		errs = append(errs, field.Required(at.Child("apiVersion"), ""))
	case err != nil:
		errs = append(errs, field.Invalid(at.Child("apiVersion"), k.APIVersion, err.Error()))
	case gv.Version == "":
		errs = append(errs, field.Invalid(at.Child("apiVersion"), k.APIVersion, "version must be specified"))
	}
	if k.Kind == "" {
		return append(errs, field.Required(at.Child("kind"), ""))
	}
	for _, msg := range utilvalidation.IsDNS1035Label(strings.ToLower(k.Kind)) {
		errs = append(errs, field.Invalid(at.Child("kind"), k.Kind, "may have mixed case, but should otherwise match: "+msg))
	}
	return errs
}

func checkConstraints(m *v1.MatchResources, at *field.Path) field.ErrorList {
	if m == nil {
		return field.ErrorList{field.Required(at, "")}
	}
	errs := checkMatch(m, at)
	if len(m.ResourceRules) == 0 {
		errs = append(errs, field.Required(at.Child("resourceRules"), ""))
	}
	return errs
}

func checkMatch(m *v1.MatchResources, at *field.Path) field.ErrorList {
	if m == nil {
		return nil
	}
	errs := oneOf(m.MatchPolicy, at.Child("matchPolicy"), v1.Equivalent, v1.Exact)
	errs = append(errs, checkSelector(m.NamespaceSelector, at.Child("namespaceSelector"))...)
	errs = append(errs, checkSelector(m.ObjectSelector, at.Child("objectSelector"))...)
	for name, rules := range map[string][]v1.NamedRuleWithOperations{"resourceRules": m.ResourceRules, "excludeResourceRules": m.ExcludeResourceRules} {
		for i := range rules {
			at := at.Child(name).Index(i)
			errs = append(errs, checkRule(&rules[i].RuleWithOperations, at, true)...)
			seen := map[string]bool{}
			for j, n := range rules[i].ResourceNames {
				if seen[n] {
					errs = append(errs, field.Duplicate(at.Child("resourceNames").Index(j), n))
				}
				seen[n] = true
			}
		}
	}
	return errs
}

func checkBinding(_ *kind.Op, b, old *v1.ValidatingAdmissionPolicyBinding) field.ErrorList {
	errs := checkMeta(&b.ObjectMeta, metaOr(old == nil, func() *metav1.ObjectMeta { return &old.ObjectMeta }))
	at, s := field.NewPath("spec"), &b.Spec
	errs = append(errs, checkBound(s.PolicyName, s.ParamRef, s.MatchResources, at)...)
	at = at.Child("validationActions")
	if len(s.ValidationActions) == 0 {
		return append(errs, field.Required(at, "at least one validation action is required"))
	}
	seen := map[v1.ValidationAction]bool{}
	for i, a := range s.ValidationActions {
		if !slices.Contains(actions, a) {
			errs = append(errs, field.NotSupported(at.Index(i), a, actions))
		}
		if seen[a] {
			errs = append(errs, field.Duplicate(at.Index(i), a))
		}
		seen[a] = true
	}
	if seen[v1.Deny] && seen[v1.Warn] {
		errs = append(errs, field.Invalid(at, s.ValidationActions, "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)"))
	}
	return errs
}

func checkBound(policy string, ref *v1.ParamRef, m *v1.MatchResources, at *field.Path) (errs field.ErrorList) {
	if policy == "" {
		errs = append(errs, field.Required(at.Child("policyName"), ""))
	} else {
		for _, msg := range utilvalidation.IsDNS1123Subdomain(policy) {
			errs = append(errs, field.Invalid(at.Child("policyName"), policy, msg))
		}
	}
	if ref != nil {
		errs = append(errs, checkParamRef(ref, at.Child("paramRef"))...)
	}
	return append(errs, checkMatch(m, at.Child("matchResources"))...)
}

func checkParamRef(r *v1.ParamRef, at *field.Path) (errs field.ErrorList) {
	switch {
	case r.Name != "" && r.Selector != nil:
		errs = append(errs, field.Forbidden(at.Child("name"), "name and selector are mutually exclusive"), field.Forbidden(at.Child("selector"), "name and selector are mutually exclusive"))
	case r.Name == "" && r.Selector == nil:
		errs = append(errs, field.Required(at, "one of name or selector must be specified"))
	case r.Name != "":
		for _, msg := range utilvalidation.IsDNS1123Subdomain(r.Name) {
			errs = append(errs, field.Invalid(at.Child("name"), r.Name, msg))
		}
	}
	errs = append(errs, checkSelector(r.Selector, at.Child("selector"))...)
	if r.ParameterNotFoundAction == nil {
		return append(errs, field.Required(at.Child("parameterNotFoundAction"), ""))
	}
	return append(errs, oneOf(r.ParameterNotFoundAction, at.Child("parameterNotFoundAction"), v1.AllowAction, v1.DenyAction)...)
}

func checkMutatingPolicy(_ *kind.Op, p, old *v1.MutatingAdmissionPolicy) field.ErrorList {
	c := &checker{params: p.Spec.ParamKind != nil, stored: map[string]bool{}}
	errs := checkMeta(&p.ObjectMeta, metaOr(old == nil, func() *metav1.ObjectMeta { return &old.ObjectMeta }))
	var known []v1.MatchCondition
	if old != nil {
		known = old.Spec.MatchConditions
		c.remember(old.Spec.Variables)
		for _, m := range old.Spec.Mutations {
			if m.JSONPatch != nil {
				c.stored[m.JSONPatch.Expression] = true
			}
			if m.ApplyConfiguration != nil {
				c.stored[m.ApplyConfiguration.Expression] = true
			}
		}
	}
	at, s := field.NewPath("spec"), &p.Spec
	errs = append(errs, oneOf(s.FailurePolicy, at.Child("failurePolicy"), v1.Fail, v1.Ignore)...)
	errs = append(errs, checkParamKind(s.ParamKind, at.Child("paramKind"))...)
	errs = append(errs, checkConstraints(s.MatchConstraints, at.Child("matchConstraints"))...)
	errs = append(errs, c.variables(s.Variables, at.Child("variables"))...)
	if len(s.Mutations) == 0 {
		errs = append(errs, field.Required(at.Child("mutations"), "mutations must contain at least one item"))
	}
	for i := range s.Mutations {
		errs = append(errs, c.mutation(&s.Mutations[i], at.Child("mutations").Index(i))...)
	}
	if s.ReinvocationPolicy == "" {
		errs = append(errs, field.Required(at.Child("reinvocationPolicy"), ""))
	} else {
		errs = append(errs, oneOf(&s.ReinvocationPolicy, at.Child("reinvocationPolicy"), v1.IfNeededReinvocationPolicy, v1.NeverReinvocationPolicy)...)
	}
	return append(errs, checkConditions(s.MatchConditions, known, at.Child("matchConditions"), c.with(c.declared()))...)
}

func (c *checker) mutation(m *v1.Mutation, at *field.Path) field.ErrorList {
	decl := c.declared()
	decl.HasPatchTypes = true
	one := func(e cel.ExpressionAccessor, at *field.Path) field.ErrorList {
		if strings.TrimSpace(e.GetExpression()) == "" {
			return field.ErrorList{field.Required(at, "expression is not specified")}
		}
		return checkExpression(e, at, c.stored[e.GetExpression()], c.with(decl))
	}
	switch m.PatchType {
	case "":
		return field.ErrorList{field.Required(at.Child("patchType"), "")}
	case v1.PatchTypeJSONPatch:
		if m.ApplyConfiguration != nil {
			return field.ErrorList{field.Invalid(at.Child("applyConfiguration"), "{applyConfiguration}", "must not be specified when patchType is JSONPatch")}
		}
		if m.JSONPatch == nil {
			return field.ErrorList{field.Required(at.Child("jsonPatch"), "must be specified when patchType is JSONPatch")}
		}
		return one(&patch.JSONPatchCondition{Expression: m.JSONPatch.Expression}, at.Child("jsonPatch", "expression"))
	case v1.PatchTypeApplyConfiguration:
		if m.JSONPatch != nil {
			return field.ErrorList{field.Invalid(at.Child("jsonPatch"), "{jsonPatch}", "must not be specified when patchType is ApplyConfiguration")}
		}
		if m.ApplyConfiguration == nil {
			return field.ErrorList{field.Required(at.Child("applyConfiguration"), "must be specified when patchType is ApplyConfiguration")}
		}
		return one(&patch.ApplyConfigurationCondition{Expression: m.ApplyConfiguration.Expression}, at.Child("applyConfiguration", "expression"))
	}
	return field.ErrorList{field.NotSupported(at.Child("patchType"), m.PatchType, []v1.PatchType{v1.PatchTypeApplyConfiguration, v1.PatchTypeJSONPatch})}
}

func checkMutatingBinding(_ *kind.Op, b, old *v1.MutatingAdmissionPolicyBinding) field.ErrorList {
	errs := checkMeta(&b.ObjectMeta, metaOr(old == nil, func() *metav1.ObjectMeta { return &old.ObjectMeta }))
	return append(errs, checkBound(b.Spec.PolicyName, b.Spec.ParamRef, b.Spec.MatchResources, field.NewPath("spec"))...)
}
