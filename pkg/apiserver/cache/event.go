package cache

import (
	"sync"

	"k8s.io/apimachinery/pkg/watch"
)

// Event is one change of one object. Item is nil when it was deleted, Prev when it was created.
type Event struct {
	Rev        int64
	Item, Prev *Item
	// gone is Prev at the revision of its deletion.
	gone *Item

	mu     sync.Mutex
	frames []frame // encoded once for all watchers that want the same
}

type frame struct {
	format string
	kind   watch.EventType
	bytes  []byte
}

// For answers what the event is to a selector, and the object it shows: an object that starts to match is added, one
// that stops is deleted (shown as it was, at the event's revision). ok is false when the selector never matched.
func (e *Event) For(s Selector) (t watch.EventType, shown *Item, ok bool) {
	now := e.Item != nil && s.Matches(e.Item)
	before := e.Prev != nil && s.Matches(e.Prev)
	switch {
	case now && before:
		return watch.Modified, e.Item, true
	case now:
		return watch.Added, e.Item, true
	case before:
		return watch.Deleted, e.last(), true
	}
	return "", nil, false
}

func (e *Event) last() *Item {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.gone == nil {
		e.gone = e.Prev.at(e.Rev)
	}
	return e.gone
}

// Frame answers the event encoded in a format, building it on first need. Bytes are shared: read only.
func (e *Event) Frame(format string, t watch.EventType, build func() ([]byte, error)) ([]byte, error) {
	e.mu.Lock()
	for _, f := range e.frames {
		if f.format == format && f.kind == t {
			e.mu.Unlock()
			return f.bytes, nil
		}
	}
	e.mu.Unlock()
	b, err := build()
	if err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.frames = append(e.frames, frame{format, t, b})
	return b, nil
}

// topics calls f with every topic the event belongs to but allTopic.
func (e *Event) topics(indexed int, f func(topic string)) {
	i := e.Item
	if i == nil {
		i = e.Prev
	}
	f(nameTopic(i.Namespace, i.Name))
	if i.Namespace != "" {
		f(namespaceTopic(i.Namespace))
	}
	if indexed < 0 {
		return
	}
	now, before := "", ""
	if e.Item != nil {
		now = e.Item.nth(indexed)
	}
	if e.Prev != nil {
		before = e.Prev.nth(indexed)
	}
	if now != "" {
		f(fieldTopic(now))
	}
	if before != "" && before != now {
		f(fieldTopic(before))
	}
}
