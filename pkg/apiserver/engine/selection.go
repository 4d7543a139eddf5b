package engine

import (
	"fmt"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/sextant-k8s/sextant/pkg/apiserver/cache"
)

// selector reads the query's selectors; a name in the path (a watch of one object) narrows them.
func (c *call) selector(labelSel, fieldSel string) (cache.Selector, error) {
	s := cache.Selector{Namespace: c.info.Namespace}
	if !c.def.Namespaced {
		s.Namespace = ""
	}
	if labelSel != "" {
		l, err := labels.Parse(labelSel)
		if err != nil {
			return s, apierrors.NewBadRequest(err.Error())
		}
		s.Labels = l
	}
	if fieldSel != "" {
		f, err := fields.ParseSelector(fieldSel)
		if err != nil {
			return s, apierrors.NewBadRequest(err.Error())
		}
		for _, r := range f.Requirements() {
			if !c.selectable(r.Field) {
				return s, c.notSelectable(r.Field)
			}
		}
		s.Fields = f
	}
	if c.info.Name != "" {
		one := fields.OneTermEqualSelector("metadata.name", c.info.Name)
		if s.Fields == nil || s.Fields.Empty() {
			s.Fields = one
		} else {
			s.Fields = fields.AndSelectors(s.Fields, one)
		}
	}
	return s, nil
}

// notSelectable is the refusal of a field nobody selects by.
func (c *call) notSelectable(name string) error {
	if len(c.def.FieldNames) > 0 {
		return apierrors.NewBadRequest(fmt.Sprintf("field label not supported: %s", name))
	}
	known := `"metadata.name"`
	if c.def.Namespaced {
		known += `, "metadata.namespace"`
	}
	return apierrors.NewBadRequest(fmt.Sprintf("%q is not a known field selector: only %s", name, known))
}

func (c *call) selectable(name string) bool {
	return name == "metadata.name" || name == "metadata.namespace" && c.def.Namespaced || slices.Contains(c.def.FieldNames, name)
}
