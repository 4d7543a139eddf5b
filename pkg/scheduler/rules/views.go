package rules

import (
	"container/list"
	"crypto/sha256"
)

// viewRows bounds the rows of all views together, about 60 bytes each.
const viewRows = 1 << 20

type viewKey struct {
	class   [sha256.Size224]byte
	profile *Profile
}

// views keeps the views used last.
type views struct {
	byKey map[viewKey]*View
	order *list.List // of viewKey, the last used in front
	rows  int
}

func newViews() *views { return &views{byKey: map[viewKey]*View{}, order: list.New()} }

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
	for _, y := range v.tallies {
		v.table.leave(y.from)
	}
	if v.class.views--; v.class.views == 0 {
		v.class.spec = nil
	}
	v.table.release(v.class)
}

func (s *views) clear() {
	for s.order.Len() > 0 {
		s.drop(s.byKey[s.order.Front().Value.(viewKey)])
	}
}

// cached answers a class's view if there is one that can be brought up to date, nil otherwise.
func (t *Table) cached(p *Pod, profile *Profile) *View {
	v := t.views.byKey[viewKey{p.Class.id, profile}]
	if v == nil || v.stale() {
		return nil
	}
	v.catchUp()
	return v
}
