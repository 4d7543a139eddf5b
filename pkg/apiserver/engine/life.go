package engine

import (
	"context"
	"sync/atomic"
	"time"
)

// life tells a stream what happens to it besides events: that it is time for a bookmark, that its time is over, or that it
// ends at once. All of it comes through one channel: what a stream selects among, it pays for with every event.
type life struct {
	// word has something in it when a flag is set.
	word                 chan struct{}
	bookmark, over, ends atomic.Bool
	stops                []func() bool
}

// begins starts a life that is over after last, and ends with any of the contexts. bookmarks asks to be told of those.
func begins(last time.Duration, bookmarks bool, ends ...context.Context) *life {
	l := &life{word: make(chan struct{}, 1)}
	l.stops = append(l.stops, time.AfterFunc(last, func() { l.tell(&l.over) }).Stop)
	if bookmarks {
		var again *time.Timer
		ready := make(chan struct{})
		again = time.AfterFunc(bookmarkEvery, func() {
			<-ready
			l.tell(&l.bookmark)
			again.Reset(bookmarkEvery)
		})
		close(ready)
		l.stops = append(l.stops, again.Stop)
	}
	for _, ctx := range ends {
		l.stops = append(l.stops, context.AfterFunc(ctx, func() { l.tell(&l.ends) }))
	}
	return l
}

func (l *life) tell(flag *atomic.Bool) {
	flag.Store(true)
	l.nudge()
}

// rings tells whether a flag is set.
func (l *life) rings() bool { return l.ends.Load() || l.over.Load() || l.bookmark.Load() }

// nudge has the stream look what there is to do.
func (l *life) nudge() {
	select {
	case l.word <- struct{}{}:
	default: // it has one already, and looks at every flag
	}
}

// stop lets go of the clocks.
func (l *life) stop() {
	for _, stop := range l.stops {
		stop()
	}
}
