package kind

import (
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupResource is how the stored kind is named.
func (d *Def) GroupResource() schema.GroupResource {
	return schema.GroupResource{Group: d.Group, Resource: d.Resource}
}

// KeyPrefix is the folder of the kind's keys below the store's prefix, with a trailing slash.
func (d *Def) KeyPrefix() string {
	if d.Prefix != "" {
		return d.Prefix + "/"
	}
	return d.Resource + "/"
}

// Key is the store's key of one object.
func (d *Def) Key(namespace, name string) string { return d.KeyPrefix() + d.ItemKey(namespace, name) }

// ItemKey is the key below KeyPrefix.
func (d *Def) ItemKey(namespace, name string) string {
	if d.Namespaced {
		return namespace + "/" + name
	}
	return name
}

// Version answers the served version gv, nil if it is not served.
func (d *Def) Version(gv schema.GroupVersion) *Version {
	for i := range d.Versions {
		if d.Versions[i].GV == gv {
			return &d.Versions[i]
		}
	}
	return nil
}

// GVK is the version's kind.
func (d *Def) GVK(v *Version) schema.GroupVersionKind {
	if v.Kind != "" {
		return v.GV.WithKind(v.Kind)
	}
	return v.GV.WithKind(d.Kind)
}

// Sub answers the subresource of that name, nil if there is none.
func (d *Def) Sub(name string) *Sub {
	for i := range d.Subs {
		if d.Subs[i].Name == name {
			return &d.Subs[i]
		}
	}
	return nil
}

// DefaultVerbs are what a stored kind serves unless its row says otherwise.
var DefaultVerbs = []string{"create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"}

// Serves tells whether the kind has the verb.
func (d *Def) Serves(verb string) bool {
	for _, v := range d.AllVerbs() {
		if v == verb {
			return true
		}
	}
	return false
}

// AllVerbs are the verbs the kind serves, sorted.
func (d *Def) AllVerbs() []string {
	if d.Verbs != nil {
		return d.Verbs
	}
	return DefaultVerbs
}

// ShownVerbs are the verbs that discovery names.
func (d *Def) ShownVerbs() []string {
	if d.Shown != nil {
		return d.Shown
	}
	return d.AllVerbs()
}

// Hub converts an object of this version to the hub.
func (v *Version) Hub(obj Object) (Object, error) {
	if v.ToHub == nil {
		return obj, nil
	}
	return v.ToHub(obj)
}

// Of converts a hub object to this version.
func (v *Version) Of(hub Object) (Object, error) {
	if v.FromHub == nil {
		return hub, nil
	}
	return v.FromHub(hub)
}

// AlwaysWrite tells that a write that changes nothing is stored all the same: its lease starts anew.
func (d *Def) AlwaysWrite() bool { return d.TTLSeconds > 0 }
