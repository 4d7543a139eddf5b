package match

import (
	"sync"

	celgo "github.com/google/cel-go/cel"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apiserver/pkg/admission/plugin/cel"
	"k8s.io/apiserver/pkg/admission/plugin/webhook/matchconditions"
	"k8s.io/apiserver/pkg/cel/environment"
)

// environmentOf is the language of this release. It takes long to make, so it is made on first need and kept.
var environmentOf = sync.OnceValue(func() *environment.EnvSet {
	return environment.MustBaseEnvSet(environment.DefaultCompatibilityVersion())
})

// plain compiles expressions that know no variables of a policy.
var plain = sync.OnceValue(func() cel.Compiler { return cel.NewCompiler(environmentOf()) })

// Compiler is the compiler of expressions that stand alone; it is shared and safe for concurrent use.
func Compiler() cel.Compiler { return plain() }

// Composed makes a compiler for one policy, whose expressions know its variables.
func Composed() (*cel.CompositedCompiler, error) { return cel.NewCompositedCompiler(environmentOf()) }

// WithAuthorizer are the declarations of match conditions.
var WithAuthorizer = cel.OptionalVariableDeclarations{HasAuthorizer: true}

// Conditions compiles match conditions that stand alone; those that do not compile fail when they are asked.
func Conditions(list []admissionregistrationv1.MatchCondition) cel.ConditionEvaluator {
	results := make([]cel.CompilationResult, len(list))
	for i, e := range ConditionsOf(list) {
		results[i] = Compiler().CompileCELExpression(e, WithAuthorizer, environment.StoredExpressions)
	}
	return cel.NewCondition(results)
}

// ConditionsOf are match conditions as expressions.
func ConditionsOf(list []admissionregistrationv1.MatchCondition) []cel.ExpressionAccessor {
	out := make([]cel.ExpressionAccessor, len(list))
	for i := range list {
		c := matchconditions.MatchCondition(list[i])
		out[i] = &c
	}
	return out
}

// Expression is one expression of a policy and what it may evaluate to.
type Expression struct {
	Name  string // of a variable or an audit annotation
	Text  string
	Types []*celgo.Type
}

// What the expressions of policies may evaluate to.
var (
	Bool         = []*celgo.Type{celgo.BoolType}
	Text         = []*celgo.Type{celgo.StringType}
	TextOrNull   = []*celgo.Type{celgo.StringType, celgo.NullType}
	AnythingType = []*celgo.Type{celgo.AnyType, celgo.DynType}
)

// GetExpression answers the text.
func (e *Expression) GetExpression() string { return e.Text }

// ReturnTypes answers the types.
func (e *Expression) ReturnTypes() []*celgo.Type { return e.Types }

// GetName answers the name.
func (e *Expression) GetName() string { return e.Name }
