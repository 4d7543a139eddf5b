package fields

import (
	"bytes"
	"cmp"
	"reflect"
	"slices"

	"sigs.k8s.io/structured-merge-diff/v6/value"
)

// side is a value in one of the two objects: absent (v is not valid and null is not set), null, or there.
type side struct {
	v    reflect.Value
	null bool
}

func (s side) absent() bool { return !s.v.IsValid() && !s.null }

// walk compares two objects and gathers in out where they differ.
type walk struct {
	out  tree
	bad  bool // something was met that only the library knows
	gain tree // what the writer gets of out
}

// see takes a value as JSON has it: pointers followed, nothing as null.
func (p *plan) see(v reflect.Value) side {
	for v.Kind() == reflect.Pointer {
		if v.IsNil() {
			return side{null: true}
		}
		v = v.Elem()
	}
	// What writes its JSON itself may write null; only comparing two of them would show that.
	if k := v.Kind(); (k == reflect.Map || k == reflect.Slice) && v.IsNil() && !p.opaque {
		return side{null: true}
	}
	return side{v: v}
}

// get takes a field of a struct; absent if JSON leaves it out.
func (f *member) get(of side) side {
	if !of.v.IsValid() {
		return side{}
	}
	v := of.v
	for _, i := range f.index {
		v = v.Field(i)
	}
	if f.omitempty && isEmpty(v) || f.omitzero != nil && f.omitzero(v) {
		return side{}
	}
	return f.plan.see(v)
}

// isEmpty is what omitempty means.
func isEmpty(v reflect.Value) bool {
	switch k := v.Kind(); k {
	case reflect.Map, reflect.Slice, reflect.String, reflect.Array:
		return v.Len() == 0
	case reflect.Struct:
		return false
	default:
		return v.IsZero()
	}
}

// node compares the values of one path, whose element is key.
func (w *walk) node(p *plan, l, r side, key string) {
	at := len(w.out)
	w.out = append(w.out, node{key: key})
	is := w.values(p, l, r)
	if is == 0 && len(w.out) == at+1 {
		w.out = w.out[:at]
		return
	}
	w.out[at].is, w.out[at].size = is, int32(len(w.out)-at)
}

// values compares two values, of which at least one is there, and answers what that makes of their path.
func (w *walk) values(p *plan, l, r side) uint8 {
	there := false
	switch p.shape {
	case object:
		for i := range p.fields {
			f := &p.fields[i]
			fl, fr := f.get(l), f.get(r)
			if fl.absent() && fr.absent() {
				continue
			}
			there = true
			at := len(w.out)
			w.node(f.plan, fl, fr, f.key)
			if len(w.out) > at {
				w.out[at].is |= f.is
			}
		}
	case table:
		there = w.tables(p, l, r)
	case keyed, set:
		there = l.v.IsValid() && l.v.Len() > 0 || r.v.IsValid() && r.v.Len() > 0
		if there {
			w.lists(p, l, r)
		}
	case unknown:
		w.bad = true
	}
	switch {
	case l.absent():
		return changed
	case r.absent():
		return removed
	case there, w.same(p, l, r):
		return 0
	}
	return changed
}

// tables compares two maps by their keys. It answers whether there are any.
func (w *walk) tables(p *plan, l, r side) bool {
	var names []string
	for _, s := range [...]side{l, r} {
		if s.v.IsValid() {
			for _, k := range s.v.MapKeys() {
				names = append(names, k.String())
			}
		}
	}
	if len(names) == 0 {
		return false
	}
	slices.Sort(names)
	names = slices.Compact(names)
	for _, name := range names {
		if !plainText(name) {
			w.bad = true
		}
		w.node(p.element, p.at(l, name), p.at(r, name), "f:"+name)
	}
	return true
}

// at takes a value of a map; absent if there is none.
func (p *plan) at(of side, name string) side {
	if !of.v.IsValid() {
		return side{}
	}
	v := of.v.MapIndex(reflect.ValueOf(name).Convert(of.v.Type().Key()))
	if !v.IsValid() {
		return side{}
	}
	return p.element.see(v)
}

// maxKeys is by how many fields elements of a list are told apart at most.
const maxKeys = 4

// item is an element of a list with what tells it from the others.
type item struct {
	side
	keys [maxKeys]scalar
	has  uint8 // of keys, a bit each
}

// items takes the elements of a list in the order of their keys.
func (w *walk) items(p *plan, s side) []item {
	if !s.v.IsValid() {
		return nil
	}
	items := make([]item, s.v.Len())
	for i := range items {
		it := &items[i]
		if it.side = p.element.see(s.v.Index(i)); it.null {
			w.bad = true
			return nil
		}
		if p.shape == set {
			v, ok := scalarOf(it.v)
			it.keys[0], it.has, w.bad = v, 1, w.bad || !ok
			continue
		}
		w.keysOf(p, it)
	}
	if len(items) > 1 {
		slices.SortFunc(items, p.compareItems)
	}
	for i := range items {
		if i > 0 && p.compareItems(items[i-1], items[i]) == 0 {
			w.bad = true // twice the same
		}
	}
	return items
}

func (w *walk) keysOf(p *plan, it *item) {
	for n, k := range p.keys {
		at := side{}
		if k.field >= 0 {
			at = p.element.fields[k.field].get(it.side)
		}
		switch {
		case at.v.IsValid():
			v, ok := scalarOf(at.v)
			it.keys[n], w.bad = v, w.bad || !ok
		case at.null:
			w.bad = true
		case k.unset != nil:
			it.keys[n] = *k.unset
		default:
			continue
		}
		it.has |= 1 << n
	}
	if it.has == 0 {
		w.bad = true
	}
}

// compareItems orders elements as the library orders what tells them apart: by names, then by values.
func (p *plan) compareItems(a, b item) int {
	if a.has == b.has {
		for n := range a.keys {
			if c := a.keys[n].compare(b.keys[n]); c != 0 {
				return c
			}
		}
		return 0
	}
	o, _ := order(p.keyOf(a), p.keyOf(b))
	return o
}

// keyOf writes what tells an element from the others as a path element.
func (p *plan) keyOf(it item) string {
	b := make([]byte, 0, 64)
	if p.shape == set {
		return string(appendScalar(append(b, "v:"...), it.keys[0]))
	}
	b = append(b, "k:{"...)
	for n, k := range p.keys {
		if it.has&(1<<n) == 0 {
			continue
		}
		if b[len(b)-1] != '{' {
			b = append(b, ',')
		}
		b = appendScalar(append(b, k.quoted...), it.keys[n])
	}
	return string(append(b, '}'))
}

// lists compares two lists by what tells their elements apart.
func (w *walk) lists(p *plan, l, r side) {
	ls, rs := w.items(p, l), w.items(p, r)
	for !w.bad && (len(ls) > 0 || len(rs) > 0) {
		o := cmp.Compare(len(rs), len(ls)) // who has none is after
		if len(ls) > 0 && len(rs) > 0 {
			o = p.compareItems(ls[0], rs[0])
		}
		at := len(w.out)
		var key item
		switch {
		case o < 0:
			key = ls[0]
			w.node(p.element, ls[0].side, side{}, "")
			ls = ls[1:]
		case o > 0:
			key = rs[0]
			w.node(p.element, side{}, rs[0].side, "")
			rs = rs[1:]
		default:
			key = rs[0]
			w.node(p.element, ls[0].side, rs[0].side, "")
			ls, rs = ls[1:], rs[1:]
		}
		if len(w.out) > at {
			w.out[at].key = p.keyOf(key)
		}
	}
}

// scalarOf takes a value that tells an element of a list from others; false for one that JSON does not write as it is.
func scalarOf(v reflect.Value) (scalar, bool) {
	switch k := v.Kind(); {
	case k == reflect.String:
		return scalar{kind: isString, text: v.String()}, plainText(v.String())
	case k == reflect.Bool && v.Bool():
		return scalar{kind: isBool, num: 1}, true
	case k == reflect.Bool:
		return scalar{kind: isBool}, true
	case isWhole(k) && v.CanInt():
		return scalar{kind: isInt, num: v.Int()}, v.Int() < exact && v.Int() > -exact
	case isWhole(k):
		return scalar{kind: isInt, num: int64(v.Uint())}, true //nolint:gosec // at most 32 bits
	}
	return scalar{}, false
}

// same tells whether two values, both there or null, are one to the library.
func (w *walk) same(p *plan, l, r side) bool {
	if l.null || r.null {
		return l.null && r.null
	}
	switch k := l.v.Kind(); {
	case p.bytes:
		return bytes.Equal(l.v.Bytes(), r.v.Bytes())
	case p.opaque:
		if reflect.DeepEqual(l.v.Interface(), r.v.Interface()) {
			return true
		}
		a, errA := p.convert.ToUnstructured(l.v)
		b, errB := p.convert.ToUnstructured(r.v)
		if errA != nil || errB != nil {
			w.bad = true
			return false
		}
		return value.Equals(value.NewValueInterface(a), value.NewValueInterface(b))
	case k == reflect.String:
		return l.v.String() == r.v.String()
	case isScalar(k):
		return l.v.Equal(r.v)
	case reflect.DeepEqual(l.v.Interface(), r.v.Interface()):
		return true
	}
	a, errA := value.NewValueReflect(pointer(l.v))
	b, errB := value.NewValueReflect(pointer(r.v))
	if errA != nil || errB != nil {
		w.bad = true
		return false
	}
	return value.Equals(a, b)
}

// pointer answers a pointer to a value, or to a copy of one that has no place of its own.
func pointer(v reflect.Value) any {
	if v.CanAddr() {
		return v.Addr().Interface()
	}
	p := reflect.New(v.Type())
	p.Elem().Set(v)
	return p.Interface()
}
