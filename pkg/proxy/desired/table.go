package desired

import (
	"iter"
	"maps"
	"slices"
	"strings"
)

// Change is what became of one Service's ports.
type Change struct{ Before, After []Port }

// Table is the ports of every Service, by "namespace/name", and how rules are made of them.
type Table struct {
	Policy Policy

	ports map[string][]Port
}

// Set puts a Service's ports; none removes it. It answers the change, and whether there is any. An endpoint that stays keeps its
// place in its lists, so that a back end which counts places writes only what came and went.
func (t *Table) Set(key string, ports []Port) (Change, bool) {
	if t.ports == nil {
		t.ports = map[string][]Port{}
	}
	c := Change{Before: t.ports[key], After: ports}
	for i := range ports {
		for j := range c.Before {
			if p, q := &ports[i], &c.Before[j]; p.Name == q.Name && p.Protocol == q.Protocol && p.V6() == q.V6() {
				p.settle(q)
			}
		}
	}
	if slices.EqualFunc(c.Before, c.After, func(a, b Port) bool { return a.equal(&b) }) {
		return Change{}, false
	}
	if len(ports) == 0 {
		delete(t.ports, key)
	} else {
		t.ports[key] = ports
	}
	return c, true
}

// settle gives the endpoints their places of before. Lists that are one stay one.
func (p *Port) settle(before *Port) {
	innerIsAny, outerIsAny := same(p.Inner, p.Any), same(p.Outer, p.Any)
	p.Any = settle(p.Any, before.Any)
	if innerIsAny {
		p.Inner = p.Any
	} else {
		p.Inner = settle(p.Inner, before.Inner)
	}
	if outerIsAny {
		p.Outer = p.Any
	} else {
		p.Outer = settle(p.Outer, before.Outer)
	}
}

func same(a, b []Endpoint) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

func settle(now, before []Endpoint) []Endpoint {
	if slices.Equal(now, before) {
		return before
	}
	place := make(map[Endpoint]int, len(before))
	for i, e := range before {
		place[e] = i
	}
	out, taken := make([]Endpoint, len(now)), make([]bool, len(now))
	var homeless []Endpoint
	for _, e := range now {
		if i, ok := place[e]; ok && i < len(out) {
			out[i], taken[i] = e, true
		} else {
			homeless = append(homeless, e)
		}
	}
	for i := range out {
		if !taken[i] {
			out[i], homeless = homeless[0], homeless[1:]
		}
	}
	return out
}

// Services is how many Services have ports.
func (t *Table) Services() int { return len(t.ports) }

// All yields every port of a family, in the order of the Services' names.
func (t *Table) All(v6 bool) iter.Seq[*Port] {
	return func(yield func(*Port) bool) {
		for _, key := range slices.Sorted(maps.Keys(t.ports)) {
			ports := t.ports[key]
			for i := range ports {
				if ports[i].V6() == v6 && !yield(&ports[i]) {
					return
				}
			}
		}
	}
}

// Of yields the ports of a family.
func Of(ports []Port, v6 bool) iter.Seq[*Port] {
	return func(yield func(*Port) bool) {
		for i := range ports {
			if ports[i].V6() == v6 && !yield(&ports[i]) {
				return
			}
		}
	}
}

// String prints the table, one line a port.
func (t *Table) String() string {
	var b strings.Builder
	for _, v6 := range []bool{false, true} {
		for p := range t.All(v6) {
			b.WriteString(p.String())
			b.WriteByte('\n')
		}
	}
	return b.String()
}

// Each yields the ports of each Service.
func (t *Table) Each() iter.Seq[[]Port] { return maps.Values(t.ports) }
