package cache

import "time"

// The history that every resource keeps for watchers that come back: what is younger than keepFor, within the bounds.
const (
	minKeep = 256
	maxKeep = 65536
	keepFor = 75 * time.Second
	// topicKeep bounds a narrow feed: a watcher further behind starts over.
	topicKeep = 4096
)

// feed is a run of events that any number of watchers read, each at its own place. Guarded by the resource's mutex.
type feed struct {
	events  []*Event
	times   []int64 // of events, unix seconds; only the feed of everything has them
	first   uint64  // number of events[0]
	wake    chan struct{}
	readers int
}

func newFeed() *feed { return &feed{wake: make(chan struct{})} }

func (f *feed) next() uint64 { return f.first + uint64(len(f.events)) }

// push appends and wakes every reader.
func (f *feed) push(e *Event) {
	f.events = append(f.events, e)
	f.alert()
}

// alert wakes every reader.
func (f *feed) alert() {
	close(f.wake)
	f.wake = make(chan struct{})
}

// drop forgets the n oldest events.
func (f *feed) drop(n int) {
	f.events = append(make([]*Event, 0, len(f.events)-n+16), f.events[n:]...)
	if f.times != nil {
		f.times = append(make([]int64, 0, cap(f.events)), f.times[n:]...)
	}
	f.first += uint64(n)
}

// trim forgets what is too old, half of what is kept at a time so that it costs nothing per event. It answers how many.
func (f *feed) trim(now int64) int {
	n := len(f.events)
	if n <= minKeep {
		return 0
	}
	cut := n / 2
	if n < maxKeep && f.times[cut] > now-int64(keepFor/time.Second) {
		return 0
	}
	return cut
}
