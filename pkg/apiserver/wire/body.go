package wire

import (
	"errors"
	"io"
	"sync"

	"golang.org/x/net/http2"
)

const (
	readFrame  = 64 << 10  // bytes of a frame that we read
	bodyWindow = 256 << 10 // bytes of a body that wait to be read
	connWindow = 1 << 20   // bytes that a client may send beyond what was taken
	unreadMost = 2 << 20   // bytes of all bodies of a connection that wait to be read; from there on, all wait for their readers
	giveFrom   = 32 << 10  // bytes from which a window is given back
)

// body is what came of a request's body and was not read yet. conn.take writes, the handler reads.
type body struct {
	mu     sync.Mutex
	more   sync.Cond
	open   bool // there is one
	buf    []byte
	at     int   // of buf, what was read
	left   int64 // bytes that were announced and have not come; -1 = nothing was announced
	window int64 // bytes that the client may send
	err    error // after buf
	closed bool
	ask    bool // the client waits to be told to continue
}

// begin opens the body; size is what was announced, -1 = nothing.
func (b *body) begin(size int64, ask bool) {
	b.more.L = &b.mu
	b.open, b.left, b.window, b.ask = true, size, bodyWindow, ask
}

// add takes what came and answers how much of it is kept to be read. A code tells of more than was announced, or allowed.
func (b *body) add(p []byte, framed int) (kept int, wrong http2.ErrCode) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.window -= int64(framed); b.window < 0 {
		return 0, http2.ErrCodeFlowControl
	}
	if b.left >= 0 {
		if b.left -= int64(len(p)); b.left < 0 {
			return 0, http2.ErrCodeProtocol
		}
	}
	if b.closed || b.err != nil {
		return 0, 0
	}
	if b.buf == nil {
		b.buf = make([]byte, 0, max(len(p), int(min(int64(len(p))+max(b.left, 0), giveFrom))))
	}
	if b.at > len(b.buf)/2 && len(b.buf)+len(p) > cap(b.buf) {
		// What was read makes room: a reader that is always behind would else make this as large as the body.
		b.buf = b.buf[:copy(b.buf, b.buf[b.at:])]
		b.at = 0
	}
	b.buf = append(b.buf, p...)
	b.more.Broadcast()
	return len(p), 0
}

// end notes that all came; false if it is less than was announced.
func (b *body) end() bool {
	if !b.open {
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err == nil {
		b.err = io.EOF
		if b.left > 0 {
			b.err = io.ErrUnexpectedEOF
		}
	}
	b.more.Broadcast()
	return b.left <= 0
}

// fail ends the body before its end.
func (b *body) fail(err error) {
	if !b.open {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err == nil {
		b.err = err
	}
	b.more.Broadcast()
}

// drop forgets what was not read and answers how much that is.
func (b *body) drop() int64 {
	if !b.open {
		return 0
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	n := len(b.buf) - b.at
	b.buf, b.at, b.closed = nil, 0, true
	b.more.Broadcast()
	return int64(n)
}

var errClosed = errors.New("the body is closed")

// reader is the body as its handler has it.
type reader struct{ st *stream }

// Read reads what came, or waits for more.
func (r reader) Read(p []byte) (int, error) {
	b := &r.st.body
	b.mu.Lock()
	if b.ask && len(b.buf) == b.at && b.err == nil {
		b.ask = false
		b.mu.Unlock()
		r.st.c.goOn(r.st)
		b.mu.Lock()
	}
	if r.st.until[reading].Load() != 0 && b.at == len(b.buf) && b.err == nil && !b.closed {
		b.mu.Unlock() // conn.mu comes first
		r.st.c.mu.Lock()
		r.st.alarmLocked(reading)
		r.st.c.mu.Unlock()
		b.mu.Lock()
	}
	for b.at == len(b.buf) && b.err == nil && !b.closed {
		b.more.Wait()
	}
	if b.closed {
		b.mu.Unlock()
		return 0, errClosed
	}
	n := copy(p, b.buf[b.at:])
	b.at += n
	var err error
	if b.at == len(b.buf) {
		if cap(b.buf) > giveFrom {
			b.buf = nil
		} else {
			b.buf = b.buf[:0]
		}
		b.at = 0
		err = b.err
	}
	b.mu.Unlock()
	if n > 0 {
		if err != nil && err != io.EOF { //nolint:errorlint // it is that very value
			err = nil // it is told with the next, empty read
		}
		r.st.c.giveBack(r.st, int64(n), err == nil)
	}
	return n, err
}

// Close forgets what was not read.
func (r reader) Close() error {
	if n := r.st.body.drop(); n > 0 {
		r.st.c.giveBack(r.st, n, false)
	}
	return nil
}

// takeData hands a piece of a body on.
func (c *conn) takeData(f *http2.DataFrame) error {
	if c.unopened(f.StreamID) {
		return http2.ConnectionError(http2.ErrCodeProtocol)
	}
	data, framed := f.Data(), int(f.Length)
	c.mu.Lock()
	st := c.streams[f.StreamID]
	heard := st != nil && st.heard
	if st != nil && f.StreamEnded() {
		st.heard = true
	}
	if c.credit -= int64(framed); c.credit < 0 {
		c.mu.Unlock()
		return http2.ConnectionError(http2.ErrCodeFlowControl)
	}
	c.unread += int64(framed)
	if st == nil || heard {
		c.giveBackLocked(nil, int64(framed))
		err := c.answerLocked()
		late := !heard && c.lateLocked(f.StreamID)
		c.mu.Unlock()
		if !late {
			return http2.StreamError{StreamID: f.StreamID, Code: http2.ErrCodeStreamClosed}
		}
		return err // its answer ended, or it was reset, while this was on its way
	}
	var err error
	if c.refillLocked() {
		err = c.answerLocked()
	}
	c.mu.Unlock()
	if err != nil {
		return err
	}
	kept, wrong := st.body.add(data, framed)
	if n := framed - kept; n > 0 { // padding, and what nobody will read
		c.mu.Lock()
		c.giveBackLocked(st, int64(n))
		err := c.answerLocked()
		c.mu.Unlock()
		if err != nil {
			return err
		}
	}
	if wrong != 0 {
		return http2.StreamError{StreamID: f.StreamID, Code: wrong}
	}
	if f.StreamEnded() {
		return st.ended()
	}
	return nil
}

// giveBack lets the client send as much again as was read; more tells that it has more to send on the stream.
func (c *conn) giveBack(st *stream, n int64, more bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !more {
		st = nil
	}
	c.giveBackLocked(st, n)
	c.flushLocked()
}

// refillLocked opens the connection's window again, and answers whether it had something to open. A body that nobody reads
// fills only its own stream's window: others go on, until too much waits in all.
func (c *conn) refillLocked() bool {
	more := min(connWindow, unreadMost-c.unread) - c.credit
	if more < giveFrom || c.err != nil {
		return false
	}
	c.credit += more
	c.windowUpdateLocked(0, more)
	return true
}

// giveBackLocked notes that n bytes wait no more, and opens the stream's window by them unless st is nil. Small amounts are
// saved up.
func (c *conn) giveBackLocked(st *stream, n int64) {
	if n == 0 || c.err != nil {
		return
	}
	c.unread -= n
	c.refillLocked()
	if st == nil || st.gone || st.heard {
		return
	}
	st.saved += n
	if st.saved >= giveFrom {
		st.body.grow(st.saved)
		c.windowUpdateLocked(st.id, st.saved)
		st.saved = 0
	}
}

func (b *body) grow(n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.window += n
}
