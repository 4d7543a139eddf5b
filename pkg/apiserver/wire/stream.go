package wire

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"runtime/debug"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
)

// errReset is what a handler sees whose client gave the request up.
var errReset = errors.New("the client reset the stream")

// stream is one request and its answer.
type stream struct {
	c      *conn
	id     uint32
	ctx    context.Context
	cancel context.CancelFunc
	req    *http.Request
	h      http.Handler
	head   bool // the answer has no body
	body   body
	until  [2]atomic.Int64 // when the client must have sent, and taken, everything, in ns; 0 = never

	// Guarded by conn.mu.
	window int64          // bytes that may be sent
	gone   bool           // reset, by either side
	heard  bool           // the client has said everything
	told   bool           // the head of the answer is on its way
	alarms [2]*time.Timer // for until, once somebody waits
	saved  int64          // bytes read of the body, until they are enough to tell the client
	waits  bool           // for a window, or for room
}

// opened notes the highest stream.
func (c *conn) opened(id uint32) {
	c.maxID = id
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lastID = id
}

// takeHeaders begins a stream, or ends the body of one with trailers, which are of no interest.
func (c *conn) takeHeaders(f *http2.MetaHeadersFrame) error {
	id := f.StreamID
	if id%2 != 1 {
		return http2.ConnectionError(http2.ErrCodeProtocol)
	}
	if id <= c.maxID {
		return c.takeTrailers(f)
	}
	if f.HasPriority() && f.Priority.StreamDep == id {
		c.opened(id)
		return http2.StreamError{StreamID: id, Code: http2.ErrCodeProtocol}
	}
	c.maxID = id
	st := &stream{c: c, id: id, heard: f.StreamEnded()}
	refusal, err := st.request(f)
	if err != nil {
		c.opened(id)
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		return nil // the last GOAWAY says that this one was not seen
	}
	c.lastID = id
	switch {
	case len(c.streams) >= c.s.MaxStreams:
		return http2.StreamError{StreamID: id, Code: http2.ErrCodeRefusedStream}
	}
	st.window = c.perSt
	st.ctx, st.cancel = context.WithCancel(c.ctx)
	st.req = st.req.WithContext(st.ctx)
	c.streams[id] = st
	st.h = c.handler
	if refusal != 0 {
		st.h = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(refusal) })
	}
	if c.running >= c.s.MaxStreams {
		// The client has reset streams whose handlers are still at it.
		if len(c.queue) >= queuedMost*c.s.MaxStreams {
			return http2.ConnectionError(http2.ErrCodeEnhanceYourCalm)
		}
		c.queue = append(c.queue, st)
		return nil
	}
	c.running++
	c.s.crew.run(st)
	return nil
}

// unopened tells whether the client has yet to open a stream, or never can.
func (c *conn) unopened(id uint32) bool { return id > c.maxID || id%2 == 0 }

// lateLocked tells whether the client may not have known yet that a stream is no more when it spoke of it.
func (c *conn) lateLocked(id uint32) bool { return c.over || slices.Contains(c.cut, id) }

// cutLocked notes that a stream ends here before the client has said everything.
func (c *conn) cutLocked(id uint32) {
	if len(c.cut) == cutMost {
		c.cut = slices.Delete(c.cut, 0, cutMost/2)
	}
	c.cut = append(c.cut, id)
}

func (c *conn) takeTrailers(f *http2.MetaHeadersFrame) error {
	c.mu.Lock()
	st := c.streams[f.StreamID]
	closed := st == nil || st.heard
	if st != nil {
		st.heard = true
	}
	late := c.lateLocked(f.StreamID)
	c.mu.Unlock()
	switch {
	case st == nil && late:
		return nil // its answer ended, or it was reset, while the trailers were on their way
	case closed:
		return http2.ConnectionError(http2.ErrCodeStreamClosed)
	case !f.StreamEnded() || len(f.PseudoFields()) > 0:
		return http2.StreamError{StreamID: f.StreamID, Code: http2.ErrCodeProtocol}
	}
	return st.ended()
}

// ended tells the body that all of it came.
func (st *stream) ended() error {
	if !st.body.end() {
		return http2.StreamError{StreamID: st.id, Code: http2.ErrCodeProtocol} // it is shorter than was said
	}
	return nil
}

// run serves the stream. Its goroutine may serve others afterwards.
func (st *stream) run() {
	w := &response{st: st, header: http.Header{}, declared: -1}
	served := false
	defer func() {
		if !served {
			if p := recover(); p != nil && p != http.ErrAbortHandler { //nolint:errorlint // it is that very value
				slog.Error("a handler panicked", "path", st.req.URL.Path, "panic", p, "stack", string(debug.Stack()))
			}
			st.c.reset(st.id, http2.ErrCodeInternal)
		}
		w.free()
		st.done()
	}()
	st.h.ServeHTTP(w, st.req)
	w.finish()
	served = true
}

// What a deadline is about.
const (
	reading = iota
	writing
)

// alarmLocked sees to it that nobody waits for the client beyond a deadline. Most never wait, so the clock is set no sooner.
func (st *stream) alarmLocked(of int) {
	until := st.until[of].Load()
	if until == 0 || st.alarms[of] != nil || st.gone {
		return
	}
	st.alarms[of] = time.AfterFunc(time.Until(time.Unix(0, until)), func() { st.ring(of) })
}

// ring is the alarm. The deadline may have moved since it was set; who writes may not wait any more.
func (st *stream) ring(of int) {
	c := st.c
	c.mu.Lock()
	until := st.until[of].Load()
	left := time.Until(time.Unix(0, until))
	switch {
	case st.alarms[of] == nil: // done
		c.mu.Unlock()
		return
	case until != 0 && left > 0:
		st.alarms[of].Reset(left)
		c.mu.Unlock()
		return
	case until == 0, of == writing && !st.waits:
		st.alarms[of] = nil // the next wait sets it again
		c.mu.Unlock()
		return
	}
	mine := c.streams[st.id] == st
	c.mu.Unlock()
	switch {
	case of == reading:
		st.body.fail(os.ErrDeadlineExceeded)
	case mine:
		c.reset(st.id, http2.ErrCodeInternal)
	}
}

// done takes the stream off the connection and gives its place to who waits for one.
func (st *stream) done() {
	st.cancel()
	unread := st.body.drop()
	c := st.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.streams[st.id] == st {
		delete(c.streams, st.id)
		if !st.heard && c.err == nil {
			// The answer was complete without all of the request: the rest need not be sent.
			c.resetLocked(st.id, http2.ErrCodeNo)
			c.cutLocked(st.id)
		}
		st.gone = true
	}
	for _, a := range st.alarms {
		if a != nil {
			a.Stop()
		}
	}
	st.alarms = [2]*time.Timer{}
	c.giveBackLocked(nil, unread)
	c.running--
	for len(c.queue) > 0 {
		next := c.queue[0]
		c.queue = c.queue[1:]
		if !next.gone {
			c.running++
			c.s.crew.run(next)
			break
		}
		c.giveBackLocked(nil, next.body.drop())
	}
	if len(c.streams) == 0 {
		c.idleAt = time.Now()
	}
	c.flushLocked()
	c.leaveIdleLocked()
}

// reset tells the client that a stream is no more.
func (c *conn) reset(id uint32, code http2.ErrCode) {
	c.drop(id)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return
	}
	c.resetLocked(id, code)
	c.cutLocked(id)
	if len(c.out) > idleAnswers {
		c.err = errGone
		c.room.Broadcast()
		go func() { _ = c.tls.Close() }() // reading ends then
		return
	}
	c.flushElsewhereLocked()
}

// drop ends a stream that one of the two gave up.
func (c *conn) drop(id uint32) {
	c.mu.Lock()
	st := c.streams[id]
	if st != nil {
		delete(c.streams, id)
		st.gone = true
		c.room.Broadcast()
	}
	c.mu.Unlock()
	if st != nil {
		st.cancel()
		st.body.fail(errReset)
	}
}
