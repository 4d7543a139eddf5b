package rules

import (
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
)

type labelsSelector = labels.Selector

// labelSet is the labels of a pod, sorted by key: a third of a map's size, and as fast for the few there are.
type labelSet []label

type label struct{ key, value string }

func labelsOf(m map[string]string) labelSet {
	if len(m) == 0 {
		return nil
	}
	out := make(labelSet, 0, len(m))
	for key, value := range m {
		out = append(out, label{key, value})
	}
	slices.SortFunc(out, func(a, b label) int { return strings.Compare(a.key, b.key) })
	return out
}

// Lookup answers the value of a label and whether there is one.
func (s labelSet) Lookup(key string) (string, bool) {
	for i := range s {
		if s[i].key == key {
			return s[i].value, true
		}
	}
	return "", false
}

// Has says whether there is such a label.
func (s labelSet) Has(key string) bool { _, ok := s.Lookup(key); return ok }

// Get answers the value of a label, empty without it.
func (s labelSet) Get(key string) string { value, _ := s.Lookup(key); return value }

func (s labelSet) asMap() map[string]string {
	out := make(map[string]string, len(s))
	for _, l := range s {
		out[l.key] = l.value
	}
	return out
}

// selector reads a label selector; nil, or one the API should have refused, selects nothing.
func selector(s *metav1.LabelSelector) labels.Selector {
	out, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		return labels.Nothing()
	}
	return out
}

// addKeys narrows a selector to the values that own has of the keys, or to all other values.
func addKeys(s labels.Selector, own map[string]string, keys []string, same bool) labels.Selector {
	for _, key := range keys {
		value, ok := own[key]
		if !ok {
			continue
		}
		op := selection.In
		if !same {
			op = selection.NotIn
		}
		if r, err := labels.NewRequirement(key, op, []string{value}); err == nil {
			s = s.Add(*r)
		}
	}
	return s
}
