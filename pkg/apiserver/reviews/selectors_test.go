package reviews

import (
	"fmt"
	"testing"

	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestSelectors tells authorizers of selectors however a review writes them; what cannot be said is left out.
func TestSelectors(t *testing.T) {
	for want, s := range map[string]*authorizationv1.FieldSelectorAttributes{
		"[]":                    nil,
		"[{= spec.nodeName n}]": {Requirements: []metav1.FieldSelectorRequirement{{Key: "spec.nodeName", Operator: metav1.FieldSelectorOpIn, Values: []string{"n"}}, {Key: "x", Operator: metav1.FieldSelectorOpExists}}},
		"[{!= a b}]":            {Requirements: []metav1.FieldSelectorRequirement{{Key: "a", Operator: metav1.FieldSelectorOpNotIn, Values: []string{"b"}}}},
		"[{= a b}]":             {RawSelector: "a=b"},
	} {
		if got := fmt.Sprint(fieldsOf(s)); got != want {
			t.Errorf("fields %s, want %s", got, want)
		}
	}
	for want, s := range map[string]*authorizationv1.LabelSelectorAttributes{
		"":         nil,
		"a in (b)": {Requirements: []metav1.LabelSelectorRequirement{{Key: "a", Operator: metav1.LabelSelectorOpIn, Values: []string{"b"}}, {Key: "x", Operator: "Likes"}}},
		"a=b":      {RawSelector: "a=b"},
	} {
		if got := fmt.Sprint(labelsOf(s)); got != want {
			t.Errorf("labels %s, want %s", got, want)
		}
	}
}
