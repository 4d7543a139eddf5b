package rules

import (
	"k8s.io/apimachinery/pkg/labels"
)

// SetService tells which pods a Service selects; nil or an empty selector is none.
func (t *Table) SetService(namespace, name string, selects map[string]string) {
	if t.services[namespace] == nil {
		t.services[namespace] = map[string]labels.Selector{}
	}
	old := t.services[namespace][name]
	if len(selects) == 0 {
		if old != nil {
			delete(t.services[namespace], name)
			t.siblingsVersion++
		}
		return
	}
	fresh := labels.SelectorFromSet(selects)
	if old == nil || old.String() != fresh.String() {
		t.services[namespace][name] = fresh
		t.siblingsVersion++
	}
}

// SetOwner tells which pods a controller selects; nil forgets it.
func (t *Table) SetOwner(kind, namespace, name string, selects labels.Selector) {
	key := ownerKey{kind, namespace, name}
	old := t.owners[key]
	if selects == nil {
		delete(t.owners, key)
	} else {
		t.owners[key] = selects
	}
	if (old == nil) != (selects == nil) || old != nil && old.String() != selects.String() {
		t.siblingsVersion++
	}
}

// siblings answers what selects the pods that serve with those of class c, nil when nothing does.
func (t *Table) siblings(c *Class) labels.Selector {
	merged, found := labels.NewSelector(), false
	for _, selects := range t.services[c.Namespace] {
		if selects.Matches(c.labels) {
			requirements, _ := selects.Requirements()
			merged, found = merged.Add(requirements...), true
		}
	}
	if selects := t.owners[ownerKey{c.owner.kind, c.Namespace, c.owner.name}]; selects != nil {
		requirements, _ := selects.Requirements()
		merged, found = merged.Add(requirements...), true
	}
	if !found {
		return nil
	}
	return merged
}

// siblingsMoved says whether the class's siblings are selected by something else than when the view was built.
func (v *View) siblingsMoved() bool {
	if len(v.class.spec.TopologySpreadConstraints) > 0 || v.siblingsSeen == v.table.siblingsVersion {
		return false
	}
	v.siblingsSeen = v.table.siblingsVersion
	return v.siblingsText != v.siblingsNow()
}

func (v *View) siblingsNow() string {
	s := v.table.siblings(v.class)
	if s == nil {
		return ""
	}
	return s.String() + " "
}
