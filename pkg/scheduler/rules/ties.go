package rules

import "slices"

// carrierLog bounds the log of classes with terms; a class that has not read on for so long begins anew.
const carrierLog = 1 << 12

// ties are the topology keys by which terms of other pods mean the pods of a class. Most classes have none: then nothing that stands
// tells them from others of the same shape.
type ties struct {
	read      uint64 // the log of carriers up to here; 0 nothing
	unwelcome []string
	liked     []string // of required affinity and of all that is preferred
}

// carriers are the known classes with pod affinity of any kind, and a log of those that came.
type carriers struct {
	all   map[*Class]struct{}
	log   []*Class
	began uint64 // the number of the first in the log; the first ever is 1
}

func newCarriers() carriers { return carriers{all: map[*Class]struct{}{}, began: 1} }

func (x *carriers) add(c *Class) {
	x.all[c] = struct{}{}
	if len(x.log) >= carrierLog {
		x.log, x.began = slices.Delete(x.log, 0, carrierLog/2), x.began+carrierLog/2
	}
	x.log = append(x.log, c)
}

// forget has every class begin anew.
func (x *carriers) forget() {
	x.began += uint64(len(x.log)) + 1
	x.log = nil
}

// ties answers a class's, brought up to date. Those to carriers that are gone since may be among them.
func (t *Table) ties(c *Class) *ties {
	x, end := &c.ties, t.carriers.began+uint64(len(t.carriers.log))
	switch {
	case x.read == end:
	case x.read < t.carriers.began:
		*x = ties{}
		for other := range t.carriers.all {
			x.tie(t, c, other)
		}
	default:
		for _, other := range t.carriers.log[x.read-t.carriers.began:] {
			if other.known {
				x.tie(t, c, other)
			}
		}
	}
	x.read = end
	return x
}

func (x *ties) tie(t *Table, c, other *Class) {
	note := func(keys *[]string, term *term) {
		if !slices.Contains(*keys, term.key) && term.matches(t, c) {
			*keys = append(*keys, term.key)
		}
	}
	for i := range other.anti {
		note(&x.unwelcome, &other.anti[i])
	}
	for i := range other.affinity {
		note(&x.liked, &other.affinity[i])
	}
	for _, list := range [][]weightedTerm{other.preferred, other.avoided} {
		for i := range list {
			note(&x.liked, &list[i].term)
		}
	}
}

// within says whether all of these ties were known when others were copied.
func (x *ties) within(others *ties) bool {
	in := func(a, b []string) bool {
		return !slices.ContainsFunc(a, func(key string) bool { return !slices.Contains(b, key) })
	}
	return in(x.unwelcome, others.unwelcome) && in(x.liked, others.liked)
}

// lone says whether no other pod matters to the pods of a class, and no volume or device: what is worked out for one class of a shape
// then holds for all of it.
func (t *Table) lone(c *Class) bool {
	if t.Devices.backs(c) || c.spreads || len(c.affinity)+len(c.anti)+len(c.preferred)+len(c.avoided)+len(c.claims)+len(c.devices)+len(c.disks) > 0 {
		return false
	}
	if x := t.ties(c); len(x.unwelcome)+len(x.liked) > 0 {
		return false
	}
	if c.siblingsSeen != t.siblingsVersion {
		c.siblingsSeen, c.siblings = t.siblingsVersion, t.siblings(c) != nil
	}
	return !c.siblings
}
