package policystatus

import (
	"fmt"
	"slices"
	"strings"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/types/traits"
	"github.com/google/cel-go/ext"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Snapshot is a policy and what is known of the kinds that it is for.
type Snapshot struct {
	Policy *admissionregistrationv1.ValidatingAdmissionPolicy
	Kinds  []Kind // that have a schema, in the order of warnings
	Params *Kind  // nil = the policy has none
}

// Kind is a kind and the schemas among which its own is; nil where nothing is known of it.
type Kind struct {
	schema.GroupVersionKind
	Schemas document
}

// Plan is a policy's status, nil if it tells of this generation already.
type Plan struct {
	ObservedGeneration int64
	Warnings           []admissionregistrationv1.ExpressionWarning
}

// String shows the plan as logs and tests do.
func (p *Plan) String() string {
	if p == nil {
		return "nothing\n"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "checked generation %d\n", p.ObservedGeneration)
	for _, w := range p.Warnings {
		fmt.Fprintf(&b, "%s\n%s", w.FieldRef, w.Warning)
	}
	return b.String()
}

// due tells whether a policy was not checked since it changed.
func due(p *admissionregistrationv1.ValidatingAdmissionPolicy) bool {
	return p.DeletionTimestamp == nil && p.Generation > p.Status.ObservedGeneration
}

// decide checks every expression of a policy against every kind that it is for.
func decide(s Snapshot) (*Plan, error) {
	if !due(s.Policy) {
		return nil, nil
	}
	p := &Plan{ObservedGeneration: s.Policy.Generation}
	if len(s.Kinds) == 0 {
		return p, nil
	}
	functions, own := declared()
	base, err := newEnv(functions)
	if err != nil {
		return nil, err
	}
	envs := make([]*cel.Env, len(s.Kinds))
	for i, k := range s.Kinds {
		if envs[i], err = bind(base, own, k, s.Params, s.Policy.Spec.Variables); err != nil {
			return nil, fmt.Errorf("declaring what expressions see of %s: %w", k.Kind, err)
		}
	}
	check := func(at, expression string) {
		var said []string
		for i, env := range envs {
			if _, issues := env.Compile(expression); issues != nil {
				said = append(said, fmt.Sprintf("%v: %s\n", s.Kinds[i].GroupVersionKind, issues))
			}
		}
		if len(said) > 0 {
			p.Warnings = append(p.Warnings, admissionregistrationv1.ExpressionWarning{FieldRef: at, Warning: strings.Join(said, "\n")})
		}
	}
	for i, v := range s.Policy.Spec.Validations {
		check(fmt.Sprintf("spec.validations[%d].expression", i), v.Expression)
		if v.MessageExpression != "" {
			check(fmt.Sprintf("spec.validations[%d].messageExpression", i), v.MessageExpression)
		}
	}
	return p, nil
}

// newEnv is the language of stored expressions in this release: without the values that functions have, since nothing runs.
func newEnv(functions []cel.EnvOption) (*cel.Env, error) {
	return cel.NewEnv(append(functions,
		cel.HomogeneousAggregateLiterals(), cel.DefaultUTCTimeZone(true), cel.CrossTypeNumericComparisons(true), cel.OptionalTypes(),
		cel.ASTValidators(cel.ValidateDurationLiterals(), cel.ValidateTimestampLiterals(), cel.ValidateRegexLiterals(), cel.ValidateHomogeneousAggregateLiterals()),
		ext.Strings(ext.StringsVersion(2)), ext.Sets(), ext.TwoVarComprehensions(), ext.Lists(ext.ListsVersion(3)),
	)...)
}

// variables is the type of the object that has a policy's variables.
const variables = "kubernetes.variables"

// bind declares what expressions see when an object of one kind comes. A variable sees those before it; of one that does not
// compile nothing is known.
func bind(base *cel.Env, own map[string]fields, kind Kind, params *Kind, list []admissionregistrationv1.Variable) (*cel.Env, error) {
	all := &objects{Provider: base.CELTypeProvider(), known: map[string]fields{variables: {}}, met: map[string]*unknown{}}
	for name, fields := range own {
		all.known[name] = fields
	}
	object := all.root(kind, "1")
	options := []cel.EnvOption{
		cel.CustomTypeProvider(all),
		cel.Variable("object", object), cel.Variable("oldObject", object), cel.Variable("variables", cel.ObjectType(variables)),
		cel.Variable("request", cel.ObjectType("kubernetes.AdmissionRequest")), cel.Variable("namespaceObject", cel.ObjectType("kubernetes.Namespace")),
		cel.Variable("authorizer", cel.ObjectType("kubernetes.authorization.Authorizer")),
	}
	if params != nil {
		options = append(options, cel.Variable("params", all.root(*params, "2")))
	}
	env, err := base.Extend(options...)
	if err != nil {
		return nil, err
	}
	for _, v := range list {
		t := cel.DynType
		if ast, issues := env.Compile(v.Expression); issues == nil {
			t = kept(ast.OutputType())
		}
		all.known[variables][v.Name] = t
	}
	return env, nil
}

// root answers the type of a kind's objects, dyn if nothing is known of them. The suffix keeps an object and a parameter of
// one kind apart.
func (o *objects) root(k Kind, suffix string) *cel.Type {
	if ref := k.Schemas.root(k.GroupVersionKind); ref != "" {
		if t := o.typeOf(k.Schemas, &node{Ref: ref}, nil, k.Kind+suffix, true); t != nil {
			return t
		}
	}
	return cel.DynType
}

var scalars = []*cel.Type{
	cel.AnyType, cel.BoolType, cel.BytesType, cel.DoubleType, cel.DurationType, cel.IntType, cel.NullType, cel.StringType, cel.TimestampType, cel.UintType,
}

// kept is what a variable keeps of its expression's type: scalars, and lists and maps of them.
func kept(t *cel.Type) *cel.Type {
	if slices.Contains(scalars, t) {
		return t
	}
	if of := t.Parameters(); t.HasTrait(traits.ContainerType) && t.HasTrait(traits.IndexerType) {
		switch len(of) {
		case 1:
			return cel.ListType(kept(of[0]))
		case 2:
			return cel.MapType(kept(of[0]), kept(of[1]))
		}
	}
	return cel.DynType
}
