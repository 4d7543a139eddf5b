package server

import (
	"net"
	"os"
	"sync"
	"time"
)

// An event that many watchers of one connection want is many small writes in a row. The server's HTTP/2 hands each to TLS
// and TLS to the kernel; a batchConn, between TLS and the kernel, lets those that come while one is on its way go together.
const (
	inARow   = 100 * time.Microsecond // writes closer than that are in a row
	batchMax = 256 << 10              // bytes that wait at most; then the writer waits
	closing  = time.Second            // how long what waits has to go out when the connection is closed
)

// batchListener accepts batchConns.
type batchListener struct{ net.Listener }

// Accept waits for the next connection.
func (l batchListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	b := &batchConn{Conn: c}
	b.room.L = &b.mu
	return b, nil
}

// batchConn joins writes that come in a row. One that comes alone is written at once, by its caller; the first in a row
// starts a goroutine that writes until nothing waits. An error is told to the next writer.
type batchConn struct {
	net.Conn

	mu      sync.Mutex
	room    sync.Cond // something was written
	waiting []byte
	spare   []byte
	writing bool
	closed  bool
	over    bool // the time for writing has passed
	last    time.Time
	err     error
}

var batches = sync.Pool{New: func() any { b := make([]byte, 0, 32<<10); return &b }}

// Write writes b, or leaves it to who is writing.
func (c *batchConn) Write(b []byte) (int, error) {
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.err == nil && !c.closed && len(c.waiting) > 0 && len(c.waiting)+len(b) > batchMax {
		c.room.Wait()
	}
	switch {
	case c.err != nil:
		return 0, c.err
	case c.closed:
		return 0, net.ErrClosed
	case c.over:
		return 0, os.ErrDeadlineExceeded
	}
	alone := now.Sub(c.last) > inARow
	c.last = now
	if alone && !c.writing {
		c.writing = true
		c.mu.Unlock()
		n, err := c.Conn.Write(b)
		c.mu.Lock()
		c.err = err
		if len(c.waiting) > 0 && err == nil {
			go c.drain() // somebody came meanwhile
		} else {
			c.writing = false
		}
		c.room.Broadcast()
		return n, err
	}
	if c.waiting == nil {
		c.waiting = *batches.Get().(*[]byte)
	}
	c.waiting = append(c.waiting, b...)
	if !c.writing {
		c.writing = true
		go c.drain()
	}
	return len(b), nil
}

// drain writes until nothing waits.
func (c *batchConn) drain() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.waiting) > 0 && c.err == nil {
		out := c.waiting
		c.waiting, c.spare = c.spare[:0], nil
		c.mu.Unlock()
		_, err := c.Conn.Write(out)
		c.mu.Lock()
		c.err, c.spare = err, out[:0]
		c.room.Broadcast()
	}
	c.writing = false
	for _, b := range [][]byte{c.waiting, c.spare} {
		if cap(b) > 0 && cap(b) <= batchMax {
			b = b[:0]
			batches.Put(&b)
		}
	}
	c.waiting, c.spare = nil, nil
	c.room.Broadcast()
}

// SetWriteDeadline sets the deadline. TLS forbids all further writing with one that has passed when it says goodbye; what
// waits was written before that, and goes out.
func (c *batchConn) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.over = !t.IsZero() && !t.After(time.Now())
	if c.over && c.writing {
		return nil
	}
	return c.Conn.SetWriteDeadline(t)
}

// Close closes the connection once what waits has been written, or cannot be. It does not wait for that itself: who closes
// many connections must not stand in line behind those whose other end reads nothing.
func (c *batchConn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return net.ErrClosed
	}
	c.closed = true
	c.room.Broadcast() // to writers that wait for room
	if !c.writing {
		return c.Conn.Close()
	}
	go c.finish()
	return nil
}

func (c *batchConn) finish() {
	stop := time.AfterFunc(closing, func() { _ = c.Conn.Close() }) // it ends a write that takes too long
	defer stop.Stop()
	c.mu.Lock()
	for c.writing {
		c.room.Wait()
	}
	c.mu.Unlock()
	_ = c.Conn.Close() // nobody is left to be told
}
