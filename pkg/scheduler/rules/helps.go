package rules

import (
	"slices"
	"strings"
)

// Helps says whether an event may make the pods of a class fit, which the named plugins refused.
func (t *Table) Helps(p *Pod, profile *Profile, rejectors []string, e Event) bool {
	if e.Kind&PodChanged != 0 {
		return true
	}
	asked, byShape := false, true
	for _, name := range rejectors {
		plugin := profile.named(name)
		if plugin == nil {
			return true // an extender, whose reasons nobody knows
		}
		asked = asked || plugin.Helps&e.Kind != 0
		byShape = byShape && plugin.ByShape
	}
	if !asked {
		return false
	}
	r, ok := t.byName[e.Node]
	switch {
	case e.Kind&StorageChanged != 0:
		return true
	case e.Kind&DevicesChanged != 0:
		return len(p.Class.devices)+len(p.Class.extended) > 0
	}
	if !ok {
		return e.Kind&(NodeAdded|NodeChanged) == 0
	}
	v := t.cached(p, profile)
	switch {
	case v == nil && byShape:
		return t.helpsShape(p, profile, r)
	case v == nil:
		return true // to find out would cost as much as to try
	}
	for i := range v.parts {
		part := &v.parts[i]
		if !slices.Contains(rejectors, part.plugin.Name) || part.plugin.Helps&e.Kind == 0 || part.Refuse != nil {
			continue // what refuses all nodes does not go away by nodes or pods
		}
		switch {
		case part.Check == nil && part.CheckPlace == nil, part.Late != nil:
			return true
		case part.CheckPlace != nil:
			if part.Wakes == nil || part.Wakes(p.Class, e) {
				return true
			}
		case t.rows[r].node != nil && v.checkRow(r) == nil:
			return true
		}
	}
	return false
}

// helpsShape says whether every plugin that reads no more of a class than its shape lets a row pass now.
func (t *Table) helpsShape(p *Pod, profile *Profile, r int32) bool {
	if t.rows[r].node == nil {
		return false
	}
	t.intern(p)
	c := p.Class
	if c.spec == nil {
		c.spec = p.spec
	}
	v := &View{table: t, class: c, profile: profile}
	defer func() {
		v.end()
		t.release(c)
	}()
	for _, plugin := range profile.plugins {
		if !plugin.ByShape || !profile.on(plugin, Filter) {
			continue
		}
		if part := plugin.Prepare(v); part.Refuse != nil || part.Check != nil && part.Check(r) != nil {
			return false
		}
	}
	return true
}

// Helpers answers the kinds of events that may help pods which the named plugins refused; all where one is an extender.
func Helpers(rejectors []string) Kind {
	kinds, all := PodChanged, Plugins()
	for _, name := range rejectors {
		i := slices.IndexFunc(all, func(plugin *Plugin) bool { return plugin.Name == name })
		if i < 0 {
			return AllKinds
		}
		kinds |= all[i].Helps
	}
	return kinds
}

// Kin names the pods for which every event is to be judged alike that may help against these plugins: those of the class, or, where the
// plugins read no more of it, of the shape.
func (p *Pod) Kin(rejectors []string) string {
	id, all := p.Class.shape, Plugins()
	for _, name := range rejectors {
		if !slices.ContainsFunc(all, func(plugin *Plugin) bool { return plugin.Name == name && plugin.ByShape }) {
			id = p.Class.id
		}
	}
	return string(id[:]) + strings.Join(rejectors, ",")
}
