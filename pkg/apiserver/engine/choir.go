package engine

import (
	"net/http"
	"slices"
	"sync"

	"github.com/sextant-k8s/sextant/pkg/apiserver/cache"
)

// Many watches of one connection often wait for the same feed. Each would be woken for every event, to add some bytes to what
// all of them send together. Instead one of them leads: it alone waits for the feed, and tells the others' clients what is
// new as long as that takes no waiting. One that would have to wait for its client is woken and does so itself, and rests
// again when it has caught up; so a slow stream delays nobody, and each stream's events stay in order.

// pen is an answer that somebody else than its handler can add to.
type pen interface {
	// Append adds a piece, whole or not at all, and never waits. full: there is no room before Drain; neither: the handler
	// must write itself.
	Append(p []byte) (done, full bool)
	// Drain sends what was appended, waiting for the network if there was no room.
	Drain()
	// Line is the connection.
	Line() any
}

// penOf finds the pen behind what wraps it; nil for none.
func penOf(w http.ResponseWriter) pen {
	for {
		if p, ok := w.(pen); ok {
			return p
		}
		u, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			return nil
		}
		w = u.Unwrap()
	}
}

// stand is what those of a choir have in common: a connection and a feed.
type stand struct{ line, feed any }

// choirs are all choirs of an engine.
type choirs struct {
	mu sync.Mutex
	at map[stand]*choir
}

// choir are the streams of one connection that follow one feed. While nobody leads and somebody rests, one who rests has been
// nudged.
//
// Locks are taken in this order: choirs, choir, stream.
type choir struct {
	mu      sync.Mutex
	members []*stream // never changed, but replaced
	leader  *stream
}

// join makes a stream a member, if its answer can be added to by others, and made without asking a service, which might not
// answer for long.
func (all *choirs) join(s *stream) (leave func()) {
	if s.pen = penOf(s.w); s.pen == nil || s.def.Loose != nil && s.def.Loose.Adopt != nil {
		return func() {}
	}
	at := stand{s.pen.Line(), s.watcher.Feed()}
	all.mu.Lock()
	defer all.mu.Unlock()
	c := all.at[at]
	if c == nil {
		c = &choir{}
		if all.at == nil {
			all.at = map[stand]*choir{}
		}
		all.at[at] = c
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	s.choir, c.members = c, append(slices.Clip(c.members), s)
	return func() {
		all.mu.Lock()
		defer all.mu.Unlock()
		c.mu.Lock()
		defer c.mu.Unlock()
		i := slices.Index(c.members, s)
		if c.members = slices.Concat(c.members[:i], c.members[i+1:]); len(c.members) == 0 {
			delete(all.at, at)
		}
	}
}

// lead makes s the leader if there is none.
func (c *choir) lead(s *stream) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.leader == nil {
		c.leader = s
	}
	return c.leader == s
}

// resign is for who rests no more: somebody else is to lead, if nobody else does.
func (c *choir) resign(s *stream) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.leader != s && c.leader != nil {
		return
	}
	c.leader = nil
	for _, m := range c.members {
		if m != s && m.resting() {
			m.clock.nudge()
			return
		}
	}
}

// sing tells every member that rests what is new, and first the leader: wake is closed when there may be more than any of them
// was told. goesOn: the leader still rests, and has nothing else to do.
func (c *choir) sing(leader *stream) (wake <-chan struct{}, goesOn bool) {
	upTo := leader.home().Rev()
	leader.hear(upTo, leader)
	if wake, goesOn = leader.wakes(); !goesOn || leader.clock.rings() {
		return nil, false
	}
	c.mu.Lock()
	members := c.members
	c.mu.Unlock()
	for _, m := range members {
		if m != leader {
			m.hear(upTo, leader)
		}
		if leader.clock.rings() {
			return nil, false // the next leader begins with all of them
		}
	}
	leader.pen.Drain()
	return wake, true
}

// hear offers until there is no more, or the leader has something else to do: a client that takes less than there is would
// keep it from that for ever.
func (s *stream) hear(upTo int64, leader *stream) {
	for s.offer(upTo) && !leader.clock.rings() {
		s.pen.Drain()
	}
}

// rest waits until there is something that the stream has to do itself: events that it must wait for its client with, or a
// word of its clock. wake is of its last Poll.
func (s *stream) rest(wake <-chan struct{}) {
	c := s.choir
	if c == nil {
		select {
		case <-wake:
		case <-s.clock.word:
		}
		return
	}
	if !s.lieDown() {
		return // something came since the last Poll, and the leader may have passed already
	}
	defer func() {
		s.rise()
		c.resign(s)
	}()
	for !c.lead(s) {
		<-s.clock.word
		if !s.resting() || s.clock.rings() {
			return
		}
	}
	for {
		// Also at first: what came since the last leader's last turn, the others have yet to be told.
		wake, goesOn := c.sing(s)
		if !goesOn {
			return
		}
		select {
		case <-wake:
		case <-s.clock.word:
			if !s.resting() || s.clock.rings() {
				return
			}
		}
	}
}

// lieDown lets the leader write for this stream from now on, unless there is something to be told already.
func (s *stream) lieDown() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rests = !s.watcher.Pending()
	return s.rests
}

func (s *stream) rise() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rests = false
}

func (s *stream) resting() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rests
}

// wakes answers what is closed when there may be more than was last told this stream.
func (s *stream) wakes() (wake <-chan struct{}, rests bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.wake, s.rests
}

// offer tells a stream that rests what is new, as far as that takes no waiting; else it wakes it. again: the connection must
// be drained first. Everything up to upTo is among what a Poll answers now.
func (s *stream) offer(upTo int64) (again bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.rests {
		return false
	}
	events, wake, err := s.watcher.Poll()
	if err != nil {
		s.wakeLocked(nil) // it finds the same
		return false
	}
	s.wake = wake
	for i, e := range events {
		done, full := s.add(e)
		if !done {
			s.watched().events.Add(float64(i))
			if full {
				s.watcher.Unread(events[i:])
			} else {
				s.wakeLocked(events[i:])
			}
			return full
		}
		s.rev = e.Rev
	}
	if len(events) > 0 {
		s.watched().events.Add(float64(len(events)))
	}
	s.rev = max(s.rev, upTo)
	return false
}

// add is tell without waiting.
func (s *stream) add(e *cache.Event) (done, full bool) {
	t, item, ok := e.For(s.sel)
	if !ok {
		return true, false
	}
	if item.Foreign() {
		return false, false // a service may have to be asked
	}
	b, err := e.Frame(s.format, t, func() ([]byte, error) { return s.frame(t, item) })
	if err != nil {
		return false, false // its own turn tells of it
	}
	if done, full = s.pen.Append(b); done {
		s.watched().sizes.Observe(float64(len(b)))
	}
	return done, full
}

// wakeLocked gives the stream back to its handler, and what it has yet to tell.
func (s *stream) wakeLocked(untold []*cache.Event) {
	s.watcher.Unread(untold)
	s.rests = false
	s.clock.nudge()
}
