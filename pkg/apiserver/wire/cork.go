package wire

import (
	"net"
	"sync"
)

// TLS writes a record of 16 KB at a time; a cork lets records of one write go to the kernel together.

const (
	corkFrom = 32 << 10 // bytes of a write from which it is worth it
	corkMax  = 64 << 10 // bytes that are held back at most
)

var corks = sync.Pool{New: func() any { b := make([]byte, 0, corkMax); return &b }}

// Listener accepts connections that can be corked.
type Listener struct{ net.Listener }

// Accept waits for the next connection.
func (l Listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &cork{Conn: c}, nil
}

// cork is a connection below TLS.
type cork struct {
	net.Conn

	mu   sync.Mutex
	held *[]byte // nil = not corked
}

// Write writes b, or holds it back.
func (c *cork) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.held == nil {
		return c.Conn.Write(b)
	}
	if len(*c.held)+len(b) > corkMax {
		if err := c.flushLocked(); err != nil {
			return 0, err
		}
	}
	*c.held = append(*c.held, b...)
	return len(b), nil
}

func (c *cork) flushLocked() error {
	if len(*c.held) == 0 {
		return nil
	}
	_, err := c.Conn.Write(*c.held)
	*c.held = (*c.held)[:0]
	return err
}

// put holds back what is written from now on.
func (c *cork) put() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held = corks.Get().(*[]byte)
}

// pull writes what was held back.
func (c *cork) pull() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	err := c.flushLocked()
	corks.Put(c.held)
	c.held = nil
	return err
}
