package rules

import (
	"container/list"
	"crypto/sha256"
)

// viewRows bounds the rows of all views together, about 60 bytes each.
const viewRows = 1 << 20

// viewKey names what a view is for: a class, or all lone classes of a shape.
type viewKey struct {
	id      [sha256.Size224]byte
	profile *Profile
	shared  bool
}

func (t *Table) viewKey(c *Class, profile *Profile) viewKey {
	if t.lone(c) {
		return viewKey{c.shape, profile, true}
	}
	return viewKey{c.id, profile, false}
}

// views keeps the views used last.
type views struct {
	byKey map[viewKey]*View
	once  map[viewKey]struct{} // asked for once
	order *list.List           // of viewKey, the last used in front
	rows  int
}

func newViews() *views {
	return &views{byKey: map[viewKey]*View{}, once: map[viewKey]struct{}{}, order: list.New()}
}

func (s *views) get(k viewKey) *View {
	v := s.byKey[k]
	if v != nil {
		s.order.MoveToFront(v.element)
	}
	return v
}

func (s *views) put(k viewKey, v *View) {
	for s.order.Len() > 4 && s.rows+len(v.seats) > viewRows {
		s.drop(s.byKey[s.order.Back().Value.(viewKey)])
	}
	s.byKey[k] = v
	v.element, v.charged = s.order.PushFront(k), len(v.seats)
	v.class.views++
	s.rows += v.charged
}

func (s *views) drop(v *View) {
	delete(s.byKey, v.element.Value.(viewKey))
	s.order.Remove(v.element)
	s.rows -= v.charged
	v.class.views--
	v.end()
	v.table.release(v.class)
}

func (s *views) clear() {
	for s.order.Len() > 0 {
		s.drop(s.byKey[s.order.Front().Value.(viewKey)])
	}
}

// cached answers a class's view if there is one that can be brought up to date, nil otherwise.
func (t *Table) cached(p *Pod, profile *Profile) *View {
	v := t.views.byKey[t.viewKey(p.Class, profile)]
	if v == nil || v.stale() {
		return nil
	}
	v.catchUp()
	return v
}
