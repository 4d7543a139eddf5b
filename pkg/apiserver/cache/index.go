package cache

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/selection"
)

// index finds items by one value they have: a field, or a label. Guarded by the resource's mutex.
type index struct {
	value func(*Item) string // "" = not in the index
	items map[string][]*Item // in key order
}

func newIndex(value func(*Item) string) *index {
	return &index{value: value, items: map[string][]*Item{}}
}

// put takes now in the place of prev; either may be nil.
func (x *index) put(prev, now *Item) {
	was, is := "", ""
	if prev != nil {
		was = x.value(prev)
	}
	if now != nil {
		is = x.value(now)
	}
	if was != "" && was != is {
		list := x.items[was]
		if n, ok := slices.BinarySearchFunc(list, prev.Key, itemKey); ok {
			list = slices.Delete(list, n, n+1)
		}
		if len(list) == 0 {
			delete(x.items, was)
		} else {
			x.items[was] = list
		}
	}
	if is == "" {
		return
	}
	list := x.items[is]
	n, ok := slices.BinarySearchFunc(list, now.Key, itemKey)
	if ok {
		list[n] = now
		return
	}
	x.items[is] = slices.Insert(list, n, now)
}

func itemKey(i *Item, key string) int { return cmp.Compare(i.Key, key) }

// Labels are indexed when they are asked for: nobody knows beforehand which, and an index of all would cost more than it saves.
const (
	indexFrom   = 256 // objects; fewer are walked
	indexAsked  = 3   // times a label is asked for before it is indexed
	indexLabels = 4   // labels of one resource that are indexed at once
	indexKeep   = 10 * time.Minute
)

// wanted counts which labels are asked for.
type wanted struct {
	from  int // objects from which it is worth it
	mu    sync.Mutex
	times map[string]int
	last  map[string]time.Time // of the labels that are indexed
}

// ask counts a question for a label and answers whether it is to be indexed now, and which other is not to be any more.
func (w *wanted) ask(key string, has bool) (add bool, drop string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	if w.times == nil {
		w.times, w.last = map[string]int{}, map[string]time.Time{}
	}
	if has {
		w.last[key] = now
		return false, ""
	}
	if len(w.times) > 64 {
		clear(w.times) // whoever asks for so many different ones asks for none often
	}
	if w.times[key]++; w.times[key] < indexAsked {
		return false, ""
	}
	if len(w.last) >= indexLabels {
		for k, at := range w.last {
			if now.Sub(at) > indexKeep {
				drop = k
			}
		}
		if drop == "" {
			return false, ""
		}
		delete(w.last, drop)
	}
	delete(w.times, key)
	w.last[key] = now
	return true, drop
}

// Select answers the selected items as they are now, in key order, and the revision of the last change among all.
func (r *Resource) Select(sel Selector) (items []*Item, rev int64) {
	r.mu.RLock()
	list, narrow := r.narrowLocked(sel)
	if narrow {
		for _, i := range list {
			if sel.Matches(i) {
				items = append(items, i)
			}
		}
		rev = r.rev
	}
	r.mu.RUnlock()
	if narrow {
		return items, rev
	}
	s := r.Snapshot()
	items, _ = s.Select(sel, "", 0)
	r.learn(sel)
	return items, s.Rev
}

// narrowLocked answers the shortest list that holds everything the selector can match; false when no index tells.
func (r *Resource) narrowLocked(sel Selector) (best []*Item, ok bool) {
	take := func(x *index, value string) {
		if list := x.items[value]; !ok || len(list) < len(best) {
			best, ok = list, true
		}
	}
	if sel.Fields != nil && r.byField != nil {
		if v, exact := sel.Fields.RequiresExactMatch(r.Def.Indexed); exact && v != "" {
			take(r.byField, v)
		}
	}
	if len(r.byLabel) > 0 {
		eachEqual(sel, func(key, value string) {
			if x := r.byLabel[key]; x != nil {
				r.wanted.ask(key, true)
				take(x, value)
			}
		})
	}
	return best, ok
}

// eachEqual calls f with every label that the selector wants to have one value.
func eachEqual(sel Selector, f func(key, value string)) {
	if sel.Labels == nil || sel.Labels.Empty() {
		return
	}
	reqs, _ := sel.Labels.Requirements()
	for _, q := range reqs {
		switch q.Operator() {
		case selection.Equals, selection.DoubleEquals, selection.In:
			if values := q.ValuesUnsorted(); len(values) == 1 && values[0] != "" {
				f(q.Key(), values[0])
			}
		}
	}
}

// learn indexes the labels that are asked for often.
func (r *Resource) learn(sel Selector) {
	eachEqual(sel, func(key, _ string) {
		r.mu.RLock()
		n, has := r.tree.Len(), r.byLabel[key] != nil
		r.mu.RUnlock()
		if has || n < r.wanted.from {
			return
		}
		add, drop := r.wanted.ask(key, false)
		if !add {
			return
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.byLabel, drop)
		x := newIndex(func(i *Item) string { return i.Labels.Get(key) })
		r.tree.Scan(func(i *Item) bool {
			x.put(nil, i)
			return true
		})
		if r.byLabel == nil {
			r.byLabel = map[string]*index{}
		}
		r.byLabel[key] = x
	})
}

// setLocked puts an item into the tree and the indexes and answers the one it replaces; nil takes the item of the key out.
func (r *Resource) setLocked(key string, item *Item) (prev *Item) {
	if item != nil {
		prev, _ = r.tree.Set(item)
	} else if prev, _ = r.tree.Delete(&Item{Key: key}); prev == nil {
		return nil
	}
	r.size += item.bytes() - prev.bytes()
	if r.byField != nil {
		r.byField.put(prev, item)
	}
	for _, x := range r.byLabel {
		x.put(prev, item)
	}
	return prev
}
