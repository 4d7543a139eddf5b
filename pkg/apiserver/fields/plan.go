package fields

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"

	"sigs.k8s.io/structured-merge-diff/v6/schema"
	"sigs.k8s.io/structured-merge-diff/v6/value"
)

// shape is how values of a type are taken apart.
type shape uint8

const (
	leaf    shape = iota // owned as a whole
	object               // a struct, by its fields
	table                // a map, by its keys
	keyed                // a list, by the key fields of its elements
	set                  // a list, by the values of its elements
	unknown              // the library has to be asked
)

// plan is how the values of one Go type are read in one type of the schema.
type plan struct {
	shape    shape
	bytes    bool // a slice of bytes, which is a string in JSON
	opaque   bool // the type writes its JSON itself
	fields   []member
	byKey    map[string]int // of fields, by their keys
	element  *plan          // of maps and lists
	keys     []keyField     // of keyed lists, by name
	convert  value.TypeReflectCacheEntry
	elemType reflect.Type
}

// member is a field of a struct in JSON.
type member struct {
	name      string
	key       string // the path element
	index     []int  // for reflect.Value.FieldByIndex
	omitempty bool
	omitzero  func(reflect.Value) bool
	is        uint8 // nobodys for what is never owned
	plan      *plan
}

// keyField is a field by which elements of a list are told apart.
type keyField struct {
	name   string
	field  int     // of the element's fields; -1 for one that the Go type does not have
	unset  *scalar // what counts if the field is left out; nil is nothing
	quoted string  // \"name\":
}

// Type is what is known of one type of objects.
type Type struct {
	root  *plan
	empty reflect.Value // what a new object is compared with
}

// New makes a Type of an object's Go type, a pointer's element, and its place in the schema.
func New(s *schema.Schema, ref schema.TypeRef, of reflect.Type) (*Type, error) {
	m := maker{schema: s, made: map[madeFor]*plan{}}
	root := m.plan(ref, of)
	if root.shape != object {
		return nil, fmt.Errorf("the schema does not describe a %s as an object", of)
	}
	root = strip(root, "apiVersion", "kind", "metadata")
	for i, f := range root.fields {
		if f.name == "metadata" {
			root.fields[i].plan = strip(f.plan, "name", "namespace", "creationTimestamp", "selfLink", "uid", "clusterName", "generation", "managedFields", "resourceVersion")
		}
	}
	return &Type{root: root, empty: reflect.New(of).Elem()}, nil
}

// strip answers a plan in which the named fields are nobody's.
func strip(p *plan, names ...string) *plan {
	out := *p
	out.fields = slices.Clone(p.fields)
	for i := range out.fields {
		if slices.Contains(names, out.fields[i].name) {
			out.fields[i].is = nobodys
		}
	}
	return &out
}

type madeFor struct {
	named    string
	relation string
	t        reflect.Type
}

// maker makes the plans of one Type. Types that hold themselves are met again while they are made.
type maker struct {
	schema *schema.Schema
	made   map[madeFor]*plan
}

func (m *maker) plan(ref schema.TypeRef, t reflect.Type) *plan {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	key := madeFor{t: t}
	if ref.NamedType != nil {
		key.named = *ref.NamedType
		if ref.ElementRelationship != nil {
			key.relation = string(*ref.ElementRelationship)
		}
		if p := m.made[key]; p != nil {
			return p
		}
	}
	p := &plan{}
	if ref.NamedType != nil {
		m.made[key] = p
	}
	m.fill(p, ref, t)
	return p
}

func (m *maker) fill(p *plan, ref schema.TypeRef, t reflect.Type) {
	atom, ok := m.schema.Resolve(ref)
	entry := value.TypeReflectEntryOf(t)
	p.convert = *entry
	p.opaque = entry.CanConvertToUnstructured()
	p.bytes = t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Uint8
	whole := (atom.Map == nil || atom.Map.ElementRelationship == schema.Atomic) && (atom.List == nil || atom.List.ElementRelationship == schema.Atomic)
	switch kind := t.Kind(); {
	case !ok || atom == (schema.Atom{}):
		p.shape = unknown
	case p.opaque:
		if p.shape = leaf; !whole {
			p.shape = unknown
		}
	case p.bytes || isScalar(kind):
		if p.shape = leaf; atom.Scalar == nil {
			p.shape = unknown
		}
	case kind == reflect.Struct && atom.Map != nil:
		if atom.Map.ElementRelationship == schema.Atomic {
			p.shape = leaf
			return
		}
		p.shape = object
		m.members(p, atom.Map, t, nil)
		slices.SortFunc(p.fields, func(a, b member) int { return strings.Compare(a.name, b.name) })
		p.byKey = make(map[string]int, len(p.fields))
		for i, f := range p.fields {
			p.byKey[f.key] = i
		}
	case kind == reflect.Map && atom.Map != nil && t.Key().Kind() == reflect.String:
		if atom.Map.ElementRelationship == schema.Atomic {
			p.shape = leaf
			return
		}
		p.shape = table
		if len(atom.Map.Fields) > 0 {
			p.shape = unknown
		}
		p.element = m.plan(atom.Map.ElementType, t.Elem())
	case kind == reflect.Slice && atom.List != nil:
		if atom.List.ElementRelationship == schema.Atomic {
			p.shape = leaf
			return
		}
		p.element, p.elemType = m.plan(atom.List.ElementType, t.Elem()), t.Elem()
		p.shape = m.list(p, atom.List, t.Elem())
	default:
		p.shape = unknown
	}
}

// list tells how the elements of a list are told apart.
func (m *maker) list(p *plan, l *schema.List, elem reflect.Type) shape {
	if len(l.Keys) == 0 {
		if k := elem.Kind(); k == reflect.String || k == reflect.Bool || isWhole(k) {
			return set
		}
		return unknown
	}
	if elem.Kind() != reflect.Struct || p.element.shape != object || len(l.Keys) > maxKeys {
		return unknown
	}
	atom, _ := m.schema.Resolve(l.ElementType)
	for _, name := range l.Keys {
		f, _ := atom.Map.FindField(name)
		k := keyField{name: name, quoted: `\"` + name + `\":`, field: slices.IndexFunc(p.element.fields, func(f member) bool { return f.name == name })}
		if f.Default != nil {
			v, ok := scalarOf(reflect.ValueOf(f.Default))
			if !ok {
				return unknown
			}
			k.unset = &v
		}
		p.keys = append(p.keys, k)
	}
	slices.SortFunc(p.keys, func(a, b keyField) int { return cmp.Compare(a.name, b.name) })
	return keyed
}

// members adds the fields of a struct, and of those inlined in it, as encoding/json sees them.
func (m *maker) members(p *plan, s *schema.Map, t reflect.Type, index []int) {
	for i := range t.NumField() {
		f := t.Field(i)
		tag, tagged := f.Tag.Lookup("json")
		if f.PkgPath != "" && !f.Anonymous || tag == "-" {
			continue
		}
		name, options, _ := strings.Cut(tag, ",")
		at := append(slices.Clone(index), i)
		if f.Anonymous && name == "" {
			if f.Type.Kind() == reflect.Struct {
				m.members(p, s, f.Type, at)
			} else {
				p.shape = unknown
			}
			continue
		}
		if name == "" {
			name = f.Name
		}
		if !tagged || !plainText(name) {
			p.shape = unknown
		}
		field := member{name: name, key: "f:" + name, index: at}
		for _, o := range strings.Split(options, ",") {
			switch o {
			case "omitempty":
				field.omitempty = true
			case "omitzero":
				field.omitzero = value.OmitZeroFunc(f.Type)
			}
		}
		ref := s.ElementType
		if sf, ok := s.FindField(name); ok {
			ref = sf.Type
		}
		field.plan = m.plan(ref, f.Type)
		p.fields = append(p.fields, field)
	}
}

func isWhole(k reflect.Kind) bool {
	return k >= reflect.Int && k <= reflect.Int64 || k >= reflect.Uint && k <= reflect.Uint32
}

func isScalar(k reflect.Kind) bool {
	return k == reflect.String || k == reflect.Bool || isWhole(k) || k == reflect.Float32 || k == reflect.Float64
}

// Types makes each Type once.
type Types struct{ made sync.Map } // of typeOrNot by reflect.Type

type typeOrNot struct {
	t   *Type
	err error
}

// Of answers the Type of a Go type; find tells its place in the schema and is asked once.
func (ts *Types) Of(of reflect.Type, find func() (*schema.Schema, schema.TypeRef, error)) (*Type, error) {
	if t, ok := ts.made.Load(of); ok {
		return t.(typeOrNot).t, t.(typeOrNot).err
	}
	s, ref, err := find()
	var made typeOrNot
	if err != nil {
		made.err = err
	} else {
		made.t, made.err = New(s, ref, of)
	}
	got, _ := ts.made.LoadOrStore(of, made)
	return got.(typeOrNot).t, got.(typeOrNot).err
}
