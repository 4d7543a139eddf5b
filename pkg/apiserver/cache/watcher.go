package cache

import (
	"errors"
)

// ErrExpired says that events between the watcher's place and now are no longer kept.
var ErrExpired = errors.New("too old resource version")

// Watcher is a place in a resource's history. One goroutine uses it.
type Watcher struct {
	r     *Resource
	sel   Selector
	topic string
	feed  *feed
	at    uint64
	// behind are the events between where the watcher starts and where it joined the feed.
	behind []*Event
	// Rev is the revision up to which everything was told.
	Rev int64
}

// Watch starts after revision from. It must be ended with Stop. from below what is kept is ErrExpired.
func (r *Resource) Watch(from int64, sel Selector) (*Watcher, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if from < r.floor {
		return nil, ErrExpired
	}
	w := r.joinLocked(sel)
	w.Rev = from
	// The history is in order of revision; most watchers start near its end.
	events := r.all.events
	first := len(events)
	for first > 0 && events[first-1].Rev > from {
		first--
	}
	for _, e := range events[first:] {
		if _, _, ok := e.For(sel); ok {
			w.behind = append(w.behind, e)
		}
	}
	return w, nil
}

// Floor is the least revision that a watch can start from.
func (r *Resource) Floor() int64 {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.floor
}

// WatchNow answers the resource as it is and a watcher that goes on from there.
func (r *Resource) WatchNow(sel Selector) (*Snapshot, *Watcher) {
	r.mu.Lock()
	defer r.mu.Unlock()
	w := r.joinLocked(sel)
	w.Rev = r.rev
	return r.snapshotLocked(), w
}

func (r *Resource) joinLocked(sel Selector) *Watcher {
	topic := sel.topic(r.Def)
	f := r.feeds[topic]
	if f == nil {
		f = newFeed()
		r.feeds[topic] = f
	}
	f.readers++
	return &Watcher{r: r, sel: sel, topic: topic, feed: f, at: f.next()}
}

// Poll answers the selected events since the last Poll, and a channel that is closed when there may be more. A watcher
// that fell off the history gets ErrExpired, once and for all. The events are read only.
func (w *Watcher) Poll() (events []*Event, wake <-chan struct{}, err error) {
	events, w.behind = w.behind, nil
	w.r.mu.RLock()
	defer w.r.mu.RUnlock()
	if w.at < w.feed.first {
		return nil, nil, ErrExpired
	}
	fresh := w.feed.events[w.at-w.feed.first:]
	wanted := 0
	for _, e := range fresh {
		if _, _, ok := e.For(w.sel); ok {
			wanted++
		}
	}
	if wanted == len(fresh) && len(events) == 0 {
		events = fresh[:wanted:wanted] // what a feed holds never changes: thousands may share it
	} else if wanted > 0 {
		for _, e := range fresh {
			if _, _, ok := e.For(w.sel); ok {
				events = append(events, e)
			}
		}
	}
	w.at = w.feed.next()
	w.Rev = max(w.Rev, w.r.rev)
	return events, w.feed.wake, nil
}

// Unread has the next Poll answer events of the last one again, which must have been all of it or its end.
func (w *Watcher) Unread(events []*Event) { w.behind = events }

// Feed is the same for all watchers that are woken together.
func (w *Watcher) Feed() any { return w.feed }

// Stop leaves the feed.
func (w *Watcher) Stop() {
	w.r.mu.Lock()
	defer w.r.mu.Unlock()
	w.feed.readers--
	if w.feed.readers == 0 && w.topic != allTopic {
		delete(w.r.feeds, w.topic)
	}
}

// Pending tells whether Poll would answer events, or an error.
func (w *Watcher) Pending() bool {
	w.r.mu.RLock()
	defer w.r.mu.RUnlock()
	return len(w.behind) > 0 || w.at != w.feed.next()
}
