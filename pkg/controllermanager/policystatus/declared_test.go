package policystatus

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/cel-go/cel"
	"k8s.io/apimachinery/pkg/util/version"
	"k8s.io/apiserver/pkg/cel/environment"
)

// signatures are all that an environment can call, and its macros.
func signatures(e *cel.Env) []string {
	var out []string
	for name, f := range e.Functions() {
		for _, o := range f.OverloadDecls() {
			out = append(out, fmt.Sprintf("%s %v %v %v", name, o.IsMemberFunction(), o.ArgTypes(), o.ResultType()))
		}
	}
	for _, m := range e.Macros() {
		out = append(out, "macro "+m.MacroKey())
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// TestDeclared holds what we declare to what the release's library has.
func TestDeclared(t *testing.T) {
	functions, _ := declared()
	ours, err := newEnv(functions)
	if err != nil {
		t.Fatal(err)
	}
	got, want := signatures(ours), signatures(environment.MustBaseEnvSet(version.MajorMinor(1, 37)).StoredExpressionsEnv())
	for _, s := range want {
		if !slices.Contains(got, s) {
			t.Errorf("the library has, and we have not: %s", s)
		}
	}
	for _, s := range got {
		if !slices.Contains(want, s) {
			t.Errorf("we have, and the library has not: %s", s)
		}
	}
	if !strings.Contains(strings.Join(got, "\n"), "isQuantity") {
		t.Error("nothing was read")
	}
}
