package policystatus

import (
	"slices"
	"strings"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/types"
)

// fields are an object's fields by the names that expressions have for them.
type fields map[string]*cel.Type

// objects tells CEL which fields objects have. An object's fields are looked up in its schema when it is first asked for
// them, so that a check costs what its expressions touch and not what a pod might have.
type objects struct {
	types.Provider                     // knows all other types
	known          map[string]fields   // by the name of the type
	met            map[string]*unknown // not asked for yet
}

// unknown is an object of which no field was asked for.
type unknown struct {
	in   document
	node *node
	from *trail
}

// FindStructType tells whether there is a type of a name.
func (o *objects) FindStructType(name string) (*types.Type, bool) {
	if o.known[name] != nil || o.met[name] != nil {
		return types.NewTypeTypeWithParam(cel.ObjectType(name)), true
	}
	return o.Provider.FindStructType(name)
}

// FindStructFieldType answers the type of a field.
func (o *objects) FindStructFieldType(name, field string) (*types.FieldType, bool) {
	have, ok := o.known[name]
	if u := o.met[name]; u != nil {
		have, ok = o.learn(name, u), true
		o.known[name] = have
		delete(o.met, name)
	}
	if !ok {
		return o.Provider.FindStructFieldType(name, field)
	}
	t := have[field]
	if t == nil && slices.Contains(reserved, field) {
		t = have["__"+field+"__"]
	}
	if t == nil {
		return nil, false
	}
	return &types.FieldType{Type: t}, true
}

// learn reads the fields of an object from its schema.
func (o *objects) learn(name string, u *unknown) fields {
	out := fields{}
	for property, n := range u.node.Properties {
		if escaped := escape(property); escaped != "" {
			if t := o.typeOf(u.in, n, u.from, name+"."+escaped, false); t != nil {
				out[escaped] = t
			}
		}
	}
	return out
}

// typeOf answers the type of what a schema describes, nil if expressions cannot see it. A root has what every object has,
// whatever its schema says.
func (o *objects) typeOf(in document, n *node, from *trail, name string, root bool) *cel.Type {
	if n, from = in.follow(n, from); n == nil {
		return nil
	}
	if n.IntOrString || n.Format == "int-or-string" {
		return cel.DynType
	}
	if root || n.Embedded {
		n = withMeta(in, n, from)
	}
	switch n.Type {
	case "array":
		if n.Items == nil {
			return nil
		}
		if t := o.typeOf(in, n.Items, from, name+".@idx", false); t != nil {
			return cel.ListType(t)
		}
	case "object":
		if n.Additional == nil || n.Additional.node == nil {
			o.met[name] = &unknown{in, n, from}
			return cel.ObjectType(name)
		}
		if t := o.typeOf(in, n.Additional.node, from, name+".@elem", false); t != nil {
			return cel.MapType(cel.StringType, t)
		}
	case "string":
		switch n.Format {
		case "byte":
			return cel.BytesType
		case "duration":
			return cel.DurationType
		case "date", "date-time":
			return cel.TimestampType
		}
		return cel.StringType
	case "boolean":
		return cel.BoolType
	case "number":
		return cel.DoubleType
	case "integer":
		return cel.IntType
	}
	return nil
}

// withMeta gives a schema the fields that every object has, unless it describes them itself.
func withMeta(in document, n *node, from *trail) *node {
	text := func(n *node, from *trail, property string) bool {
		p := n.Properties[property]
		if p == nil {
			return false
		}
		p, _ = in.follow(p, from)
		return p != nil && p.Type == "string"
	}
	if meta := n.Properties["metadata"]; meta != nil && text(n, from, "kind") && text(n, from, "apiVersion") {
		m, at := in.follow(meta, from)
		if m != nil && m.Type == "object" && text(m, at, "name") && text(m, at, "generateName") {
			return n
		}
	}
	with := *n
	with.Properties = map[string]*node{}
	for name, p := range n.Properties {
		with.Properties[name] = p
	}
	str := &node{Type: "string"}
	with.Properties["kind"], with.Properties["apiVersion"] = str, str
	with.Properties["metadata"] = &node{Type: "object", Properties: map[string]*node{"name": str, "generateName": str}}
	return &with
}

// reserved are the words that CEL keeps to itself.
var reserved = strings.Fields("true false null in as break const continue else for function if import let loop package namespace return var void while")

var escapes = strings.NewReplacer("__", "__underscores__", ".", "__dot__", "-", "__dash__", "/", "__slash__")

// escape answers the name by which expressions reach a property, "" if none can.
func escape(property string) string {
	if property == "" || property[0] >= '0' && property[0] <= '9' {
		return ""
	}
	if slices.Contains(reserved, property) {
		return "__" + property + "__"
	}
	for _, c := range property {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune("_.-/", c)) {
			return ""
		}
	}
	return escapes.Replace(property)
}
