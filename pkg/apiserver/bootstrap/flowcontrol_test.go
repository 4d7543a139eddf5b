package bootstrap

import (
	"testing"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestFlowControlIsKept changes default schemas and levels as administrators may and may not.
func TestFlowControlIsKept(t *testing.T) {
	defaults, err := Objects()
	if err != nil {
		t.Fatal(err)
	}
	notes := func(said string) map[string]string {
		if said == "" {
			return nil
		}
		return map[string]string{flowcontrolv1.AutoUpdateAnnotationKey: said}
	}
	seen := 0
	for _, o := range defaults {
		want, ok := o.(*flowcontrolv1.FlowSchema)
		if !ok {
			continue
		}
		seen++
		if completes(want.DeepCopy(), want) {
			t.Errorf("%s is not what it should be from the start", want.Name)
		}
		for _, c := range []struct {
			said       string
			generation int64
			kept       bool
		}{{"true", 5, true}, {"false", 5, false}, {"", 1, true}, {"", 2, false}} {
			have := want.DeepCopy()
			have.Annotations, have.Generation = notes(c.said), c.generation
			have.Spec.MatchingPrecedence++
			kept := c.kept || want.Name == "exempt" || want.Name == "catch-all"
			if completes(have, want) != kept || kept && have.Spec.MatchingPrecedence != want.Spec.MatchingPrecedence {
				t.Errorf("%s with annotation %q and generation %d: kept is not %v", want.Name, c.said, c.generation, kept)
			}
		}
	}
	if seen < 5 {
		t.Errorf("there are %d default schemas", seen)
	}
	exempt := func(shares int32) *flowcontrolv1.PriorityLevelConfiguration {
		return &flowcontrolv1.PriorityLevelConfiguration{
			ObjectMeta: metav1.ObjectMeta{Name: "exempt", Annotations: notes("true")},
			Spec:       flowcontrolv1.PriorityLevelConfigurationSpec{Type: "Exempt", Exempt: &flowcontrolv1.ExemptPriorityLevelConfiguration{NominalConcurrencyShares: &shares}},
		}
	}
	if completes(exempt(7), exempt(0)) {
		t.Error("what the exempt level lends is taken from its administrator")
	}
}
