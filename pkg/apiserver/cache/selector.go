package cache

import (
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

// Selector is which objects a list or a watch asks for. The zero value is all.
type Selector struct {
	Namespace string // "" = all
	Labels    labels.Selector
	Fields    fields.Selector
}

// Matches tells whether the item is selected.
func (s Selector) Matches(i *Item) bool {
	if s.Namespace != "" && i.Namespace != s.Namespace {
		return false
	}
	if s.Fields != nil && !s.Fields.Empty() && !s.Fields.Matches(i) {
		return false
	}
	return s.Labels == nil || s.Labels.Empty() || s.Labels.Matches(i.Labels)
}

// name answers the one name the selector allows, if it does.
func (s Selector) name() string {
	if s.Fields == nil {
		return ""
	}
	n, _ := s.Fields.RequiresExactMatch("metadata.name")
	return n
}

// topic answers the narrowest feed that carries everything the selector can match.
func (s Selector) topic(def *kind.Def) string {
	if n := s.name(); n != "" && (s.Namespace != "" || !def.Namespaced) {
		return nameTopic(s.Namespace, n)
	}
	if s.Fields != nil && def.Indexed != "" {
		if v, ok := s.Fields.RequiresExactMatch(def.Indexed); ok && v != "" {
			return fieldTopic(v)
		}
	}
	if s.Namespace != "" {
		return namespaceTopic(s.Namespace)
	}
	return allTopic
}

// The topics an event is told under.
const allTopic = ""

func nameTopic(ns, name string) string { return "n" + ns + "/" + name }
func fieldTopic(value string) string   { return "f" + value }
func namespaceTopic(ns string) string  { return "s" + ns }
